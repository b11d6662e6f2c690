"""Tables, statistics and figures made from records. Nothing here loads a model."""

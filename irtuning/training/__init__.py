"""One run: configuration, preparation, training, checkpoints, record and the saved classifier."""

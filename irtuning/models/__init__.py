"""What is trained: the catalogue of models, loading, adapters and prompts."""

"""Pre-training of `irtuning-mini`: plain text, pairs made from it, the model and its training."""

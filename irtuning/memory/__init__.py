"""Will it fit? Peak GPU memory of a training step, predicted without a GPU."""

"""The method: choose, freeze, score and clip layers. It knows no corpus, no record and no command line."""

"""Test whether a comparison shows its progress in a terminal or in a notebook."""

import sys


def in_notebook() -> bool:
    """Return whether this process is a Jupyter kernel, which shows standard error like a warning."""
    return type(getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()).__name__ == "ZMQInteractiveShell"

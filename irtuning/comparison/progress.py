"""Progress bar of a comparison, in a terminal or in a notebook."""

import sys

from tqdm import tqdm


def in_notebook() -> bool:
    """Return whether this process is a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def progress_bar(total: int, desc: str, disable: bool = False) -> tqdm:
    """Return a tqdm bar. In a notebook it writes to standard output, since standard error is shown as a warning."""
    return tqdm(total=total, desc=desc, disable=disable, file=sys.stdout if in_notebook() else sys.stderr)

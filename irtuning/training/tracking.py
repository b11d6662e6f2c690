"""What trackers such as TensorBoard get of a run, through the Trainer's own integrations."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers.integrations import get_available_reporting_integrations

from irtuning.errors import unknown

FOLDER = "TENSORBOARD_LOGGING_DIR"


@contextmanager
def trackers(names: Sequence[str], output: str | Path | None) -> Iterator[None]:
    """Check the names, and give TensorBoard a folder beside the run's, `NAME.tensorboard`, where it has none.

    Raises:
        InputError: a tracker the Trainer does not know or that is not installed.
    """
    known = get_available_reporting_integrations()
    for name in names:
        if name not in known:
            raise unknown("tracker (or it is not installed)", name, known)
    ours = "tensorboard" in names and FOLDER not in os.environ
    if ours:
        os.environ[FOLDER] = f"{output or 'runs/unsaved'}.tensorboard"
    try:
        yield
    finally:
        if ours:
            del os.environ[FOLDER]


def layer_figures(history: Sequence[dict], layers: Sequence[int]) -> dict[str, float]:
    """Of the last step: how many layers learned, and the scores they were chosen from, by layer."""
    if not history:
        return {}
    scores = zip(layers, history[-1]["scores"] or (), strict=False)
    figures = {f"layer_score/{layer:02}": score for layer, score in scores if score is not None}
    return {"learning_layers": len(history[-1]["layers"]), **figures}

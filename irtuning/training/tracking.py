"""What trackers such as TensorBoard receive from a run, through the Trainer's own integrations."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers.integrations import get_available_reporting_integrations

from irtuning.errors import unknown

FOLDER = "TENSORBOARD_LOGGING_DIR"


@contextmanager
def trackers(names: Sequence[str], output: str | Path | None) -> Iterator[None]:
    """Check the names of trackers, and let TensorBoard write to `NAME.tensorboard` beside the run's folder.

    Raises:
        InputError: the Trainer does not know a tracker, or it is not installed.
    """
    known = get_available_reporting_integrations()
    for name in names:
        if name not in known:
            raise unknown("tracker (or it is not installed)", name, known)
    choose = "tensorboard" in names and FOLDER not in os.environ
    if choose:
        os.environ[FOLDER] = f"{output or 'runs/unsaved'}.tensorboard"
    try:
        yield
    finally:
        if choose:
            del os.environ[FOLDER]


def layer_numbers(history: Sequence[dict], layers: Sequence[int]) -> dict[str, float]:
    """Return how many layers learned in the last step, and the scores they were chosen from, by layer."""
    if not history:
        return {}
    scores = zip(layers, history[-1]["scores"] or (), strict=False)
    numbers = {f"layer_score/{layer:02}": score for layer, score in scores if score is not None}
    return {"learning_layers": len(history[-1]["layers"]), **numbers}

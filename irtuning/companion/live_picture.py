"""The layers while they learn: a picture in the notebook, drawn anew every few steps."""

from transformers import TrainerCallback

from irtuning.comparison.progress import in_notebook
from irtuning.errors import InputError
from irtuning.analysis.figures.layers import layer_importance
from irtuning.analysis.figures.style import to_image
from irtuning.method.layers import find_layers


class LiveLayers(TrainerCallback):
    """Shows scores and chosen layers, layer x step, while a Trainer with a layerwise callback trains.

    `train(..., callbacks=[LiveLayers()])`, or `trainer.add_callback(LiveLayers())`. One cell output is replaced in
    place and its last picture stays. Outside a notebook nothing is shown and only the last picture is drawn.

    Args:
        every: steps between two pictures; drawing one takes about a third of a second.

    Attributes:
        image: the last picture, as PNG bytes.

    Raises:
        InputError: `every` below 1, or a Trainer without a layerwise callback.
    """

    def __init__(self, every: int = 5):
        if every < 1:
            raise InputError(f"every is {every}; give 1 step or more")
        self.every, self.image, self._handle = every, None, None

    def on_train_begin(self, args, state, control, **kwargs):
        self._handle = None  # a further training gets a picture of its own

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if getattr(state, "_layerwise", None) is None:
            raise InputError("LiveLayers shows what a layerwise callback chooses; add IRTuning() or LayerwiseTuning(...)")
        if in_notebook() and state.global_step % self.every == 0:
            self._draw(state, model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self._draw(state, model)

    def _draw(self, state, model) -> None:
        callback = state._layerwise
        run = {"depth": len(find_layers(model)), "candidate_layers": callback.layers.indices}
        self.image = to_image(layer_importance({"run": run, "train": {"steps": callback.history}}))
        if not in_notebook():
            return
        from IPython.display import Image, display

        picture = Image(self.image, width=720, alt="scores and chosen layers so far")
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

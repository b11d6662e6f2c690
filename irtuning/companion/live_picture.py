"""A picture of the scores and the chosen layers that grows in a notebook while a model trains."""

from IPython.display import Image, display
from transformers import TrainerCallback

from irtuning.analysis.figures.layers import layer_importance
from irtuning.analysis.figures.style import to_image
from irtuning.comparison.runs import in_notebook
from irtuning.errors import InputError
from irtuning.method.layers import find_layers


class LiveLayers(TrainerCallback):
    """Trainer callback that shows scores and chosen layers every few steps while a layerwise callback trains.

    Outside a notebook only the last picture is drawn. `image` holds the newest one as PNG.
    """
    def __init__(self, every: int = 5):
        if every < 1:
            raise InputError(f"every is {every}; give 1 step or more")
        self.every, self.image, self._handle = every, None, None

    def on_train_begin(self, args, state, control, **kwargs):
        """Begin a new picture for this training."""
        self._handle = None

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Draw the picture again if it is due. InputError if there is no layerwise callback."""
        if getattr(state, "_layerwise", None) is None:
            raise InputError("LiveLayers needs a layerwise callback; add IRTuning() or LayerwiseTuning(...)")
        if in_notebook() and state.global_step % self.every == 0:
            self.on_train_end(args, state, control, model)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        """Draw the picture, and show it if this is a notebook."""
        layers = state._layerwise.layers
        run = {"depth": len(find_layers(model)), "candidate_layers": layers.indices, "candidate_blocks": layers.blocks}
        self.image = to_image(layer_importance({"run": run, "train": {"steps": state._layerwise.history}}))
        picture = Image(self.image, width=720, alt="scores and chosen layers so far")
        if self._handle:
            self._handle.update(picture)
        elif in_notebook():
            self._handle = display(picture, display_id=True)

"""Figures: data in, matplotlib figure out. `style` is shared; a module each for corpora, runs and layers."""

from irtuning.figures.corpus import confusion, label_counts
from irtuning.figures.layers import layer_importance, layer_shares
from irtuning.figures.runs import convergence, run_curve, score_comparison
from irtuning.figures.style import STYLE, method_colour, to_image

__all__ = [
    "STYLE",
    "confusion",
    "convergence",
    "label_counts",
    "layer_importance",
    "layer_shares",
    "method_colour",
    "run_curve",
    "score_comparison",
    "to_image",
]

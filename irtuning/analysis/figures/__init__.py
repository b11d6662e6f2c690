# ruff: noqa: F401
"""Figures: data in, matplotlib figure out. `style` is shared; a module each for corpora, runs, layers and memory."""

from irtuning.analysis.figures.corpus import confusions, edit_sizes, label_counts, operation_shares
from irtuning.analysis.figures.layers import agreement_map, component_map, cut_figure, layer_importance, layer_shares, score_bands
from irtuning.analysis.figures.memory import memory_parts, predicted_and_measured, step_engines
from irtuning.analysis.figures.runs import class_heatmap, comparison_forest, confusion_pair, convergence, depth_and_time
from irtuning.analysis.figures.runs import difference_forest, run_curve, score_by_size, score_comparison, step_memory
from irtuning.analysis.figures.style import STYLE, method_colour, to_image

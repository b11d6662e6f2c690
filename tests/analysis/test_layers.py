"""Tables and figures of layers on hand-made records: scores, how the choice changes, the cut."""

import math

import pytest

from irtuning.analysis.figures.layers import cut_figure, late_choice, layer_importance
from irtuning.analysis.layers import choice_over_time, late_shares, score_matrix
from irtuning.errors import InputError


def record(scores, layers, method="ir", seed=1, depth=4):
    """A record of as many steps as there are rows of scores (None: the method keeps none) and of layers."""
    steps = [
        {"step": i + 1, "scores": row, "layers": list(chosen), "gradient_norm": 1.0, "skipped": False, "loss": 1.0}
        for i, (row, chosen) in enumerate(zip(scores, layers, strict=True))
    ]
    config = {"corpus": "synthetic", "model": "mini", "method": method, "fold": 0, "seed": seed, "adapter": "lora",
              "head": "learns", "train_share": 1.0}  # fmt: skip
    return {"run": {"config": config, "depth": depth, "candidate_layers": list(range(depth))}, "train": {"steps": steps}}


SCORES = [[None] * 4, [1.0, None, 3.0, None], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 5.0, 6.0], [1.0, 2.0, 7.0, 8.0]]
LAYERS = [(0, 2), (1, 3), (2, 3), (2, 3), (2, 3)]
RUN = record(SCORES, LAYERS)


def test_scores_are_a_matrix_and_a_method_without_any_says_so():
    table = score_matrix(RUN)
    assert table.shape == (4, 5) and math.isnan(table.loc[1, 2]) and table.loc[3, 5] == 8.0
    with pytest.raises(InputError, match="'rst' keeps no scores"):
        score_matrix(record([None] * 5, LAYERS, "rst"))


def test_a_choice_is_described_after_the_first_quarter_by_corpus_and_method():
    moving = record([None] * 5, [(0, 1), (0, 1), (0, 2), (0, 1), (0, 1)], "rst")
    assert late_shares(RUN).tolist() == [0, 0.25, 0.75, 1] and late_shares(moving).tolist() == [1, 0.75, 0.25, 0]
    table = choice_over_time([RUN, record(SCORES, [(2, 3)] * 5, seed=2), moving])
    kept = table.loc["synthetic", "ir"]
    assert (kept["layers"], kept.steady, kept.frozen, kept.changes, kept.runs) == (4, 1.5, 1.5, 0.5, 2)
    assert kept.one_set == pytest.approx((0.75 + 1) / 2)
    assert table.changes["synthetic", "rst"] == 2 and table.one_set["synthetic", "rst"] == 0.75


def test_figures_show_the_tables():
    maps = [axis for axis in layer_importance(RUN).axes if axis.collections]
    drawn = maps[0].collections[0].get_array()
    assert drawn.shape == (4, 5) and drawn[3, 4] == 8.0
    assert len([a for a in layer_importance(record([None] * 5, LAYERS, "rst")).axes if a.get_ylabel() == "layer"]) == 1
    shares = late_choice([RUN, record(SCORES, [(2, 3)] * 5, seed=2)]).axes[0].collections[0].get_array()
    assert shares.tolist() == [[0, 0.25, 0.75, 1], [0, 0, 1, 1]]


def test_the_cut_is_drawn_where_the_selector_cuts():
    for variant, note in (("exact", []), ("reference", ["learns: one extra layer"])):
        above, below = cut_figure([0.9, 0.3, 1.1, 0.2, 0.4, 1.3, 0.25, 1.0], variant).axes
        line = next(line for line in above.lines if line.get_label() == "smallest V in the window")
        assert line.get_xdata()[0] == 3.5  # between the four low and the four high scores
        labels = above.get_legend_handles_labels()[1]
        assert [label for label in labels if "extra" in label or "outside" in label] == note
        assert below.lines[0].get_ydata().argmin() == 3
    above, below = cut_figure([*range(10, 19), 90], "exact").axes
    assert "smallest V of all, outside it" in above.get_legend_handles_labels()[1]
    assert [line.get_xdata()[0] for line in below.lines if line.get_markerfacecolor() == "none"] == [8.5]
    with pytest.raises(InputError, match="all of them known"):
        cut_figure([1.0, None, 2.0])

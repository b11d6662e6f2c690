"""Tables and figures of layers on hand-made records: scores, lock-in, agreement, stability, the cut."""

import math

import pytest

from irtuning.errors import InputError
from irtuning.analysis.figures.layers import agreement_map, cut_figure, layer_importance, layer_shares
from irtuning.analysis.layers import lock_in, rank_agreement, score_matrix, stability


def record(scores, layers, method="ir", seed=1, depth=4):
    """A record of as many steps as there are rows of scores (None: the method keeps none) and of layers."""
    steps = [
        {"step": i + 1, "scores": row, "layers": list(chosen), "skipped": False, "loss": 1.0}
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


def test_lock_in_counts_layers_given_up_and_held_on_to():
    (row,) = lock_in([RUN]).to_dict("records")
    assert (row["never_after_3"], row["always_after_3"], row["always"], row["layers"]) == (2, 2, 0, 4)
    # ages when a choice was made: step 2: two of 1; step 3: 2, 1, 2, 1; step 4: 3, 2, 1, 1; step 5: 4, 3, 1, 1
    assert row["score_age"] == pytest.approx((2 + 6 + 7 + 9) / 14)
    explores = record(SCORES, [(0, 2), (1, 3), (0, 1), (2, 3), (2, 3)])  # step 3 does not count
    assert lock_in([explores]).never_after_3.iloc[0] == 2
    assert math.isnan(lock_in([record([None] * 5, LAYERS, "rst")]).score_age.iloc[0])


def test_runs_agree_with_themselves_and_opposites_disagree():
    up, down = [[1.0, 2.0, 3.0, 4.0]] * 3, [[4.0, 3.0, 2.0, 1.0]] * 3
    runs = [record(up, LAYERS[2:]), record(down, LAYERS[2:], "ir-weight"), record(up, LAYERS[2:], seed=2)]
    table = rank_agreement(runs)
    assert table.loc["ir", "ir"] == pytest.approx(1) and table.loc["ir", "ir-weight"] == pytest.approx(-1)
    assert rank_agreement([*runs, record([None] * 3, LAYERS[2:], "rst")]).equals(table)


def test_stability_between_steps_and_between_seeds():
    same, other = record(SCORES, LAYERS, seed=2), record(SCORES, [(0, 1)] * 5, seed=3)
    table = stability([RUN, same])
    assert table.seed_spearman["ir"] == pytest.approx(1)
    assert table.step_jaccard["ir"] == pytest.approx((0 + 1 / 3 + 1 + 1) / 4)
    assert stability([RUN, other]).seed_spearman["ir"] < 0


def test_figures_show_the_tables():
    maps = [axis for axis in layer_importance(RUN).axes if axis.collections]
    drawn = maps[0].collections[0].get_array()
    assert drawn.shape == (4, 5) and drawn[3, 4] == 8.0
    assert len([a for a in layer_importance(record([None] * 5, LAYERS, "rst")).axes if a.get_ylabel() == "layer"]) == 1
    frequency = layer_shares([RUN]).axes[0].collections[0].get_array()
    assert frequency.tolist() == [[0.2, 0.2, 0.8, 0.8]]
    assert agreement_map([RUN, record(SCORES, LAYERS, "ir-weight")]).axes[0].collections[0].get_array().shape == (2, 2)


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

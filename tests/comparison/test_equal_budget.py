"""Test of the budget that a comparison gives to its baselines."""

from irtuning.comparison.runs import with_budget
from irtuning.training.config import RunConfig


def test_an_equal_budget_is_a_share_of_the_layers_that_can_learn():
    steps = [{"step": i + 1, "layers": [layer]} for i, layer in enumerate((0, 1, 1))]
    leader = {"run": {"candidate_layers": [0, 1], "depth": 3}, "train": {"steps": steps}}
    assert with_budget(RunConfig(method="rst"), leader).share == 0.5

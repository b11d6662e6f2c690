"""Fixed sets, sets drawn once, transplanted sets, a probe, and layers drawn by their gradients."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import collate, make_classifier, make_examples
from peft import LoraConfig

from irtuning import InputError, LayerTuner, add_adapter, make_strategy, train
from irtuning.comparison.runs import run_comparison
from irtuning.method.scores import gradient_score

BATCHES = [collate(make_examples()[i : i + 12]) for i in range(0, 48, 12)]


def make_tuner(strategy, layers=None, steps=None, seed=0):
    lora = LoraConfig(r=2, lora_dropout=0.0, task_type="SEQ_CLS", target_modules=["q_proj"], layers_to_transform=layers)
    model = add_adapter(make_classifier(num_hidden_layers=6), lora)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    return LayerTuner(model.eval(), strategy, optimizer, seed=seed, steps=steps)


def step(tuner, batch=BATCHES[0]):
    chosen = tuner.begin_step()
    tuner.model.train()(**batch).loss.backward()
    tuner.end_backward()
    tuner.optimizer.step()
    tuner.optimizer.zero_grad()
    return chosen


def drawn(text, count=20, steps=200, scores=None, seed=0):
    """What a strategy chooses in each step at unchanged scores."""
    strategy, rng = make_strategy(text), np.random.default_rng(seed)
    strategy.begin(count, steps)
    return [strategy.choose(i, scores or [None] * count, rng) for i in range(steps)]


def weights(tuner):
    return [p.detach().clone() for layer in tuner.layers.parameters for p in layer]


@pytest.mark.parametrize(("text", "adapted", "wanted"), [
    ("fixed:layers=1-2+4", None, [1, 2, 4]), ("fixed:layers=3", None, [3]), ("fixed", None, [0, 1, 2, 3, 4, 5]),
    ("fixed:layers=2+5", [2, 4, 5], [2, 5]), ("fixed:layers=4-5:min_layer=3", None, [4, 5]),
])  # fmt: skip
def test_fixed_layers_are_named_by_their_number_in_the_model(text, adapted, wanted):
    tuner = make_tuner(text, adapted)
    assert [step(tuner) for _ in range(3)] == [wanted] * 3


@pytest.mark.parametrize(("text", "adapted", "message"), [
    ("fixed:layers=4-7", None, r"fixed wants layers \[6, 7\], but those that can learn are \[0, 1, 2, 3, 4, 5\]"),
    ("fixed:layers=1", [2, 3], r"wants layers \[1\]"), ("fixed:layers=2:min_layer=3", None, r"wants layers \[2\]"),
    ("fixed:layers=5-3", None, "wants layers"), ("fixed:layers=", None, "layers is ''; give numbers and ranges"),
    ("fixed:layers=1,2", None, "give numbers and ranges"), ("transplant", None, "write transplant:run=FOLDER"),
    ("transplant:run=nowhere", None, "'nowhere' is not the folder of a finished run"),
    ("random-static:share=1.5", None, "share is 1.5"), ("probe:share=0", None, "share is 0"),
    ("probe:batches=9", None, "probe measures for 9 steps of 9; lower batches"), ("probe:score=mean", None, "'mean'"),
    ("sampled:temperature=0", None, "temperature is 0"), ("sampled:epsilon=2", None, "epsilon is 2"),
])  # fmt: skip
def test_what_cannot_be_chosen_is_refused_before_the_first_step(text, adapted, message):
    with pytest.raises(InputError, match=message):
        make_tuner(text, adapted, steps=9)


def test_a_static_draw_is_made_once_and_as_large_as_ir_tuning_can_choose_or_as_told():
    sets = {seed: drawn("random-static", seed=seed) for seed in range(5)}
    assert all(len({tuple(chosen) for chosen in of}) == 1 for of in sets.values())
    assert len({tuple(of[0]) for of in sets.values()}) > 1
    assert {len(of[0]) for of in sets.values()} == {max(map(len, drawn("ir")))} == {13}
    assert len(drawn("random-static:share=0.25")[0]) == 5


def test_a_transplant_learns_what_another_run_learned_last(tmp_path):
    common = {"corpus": "synthetic", "model": "tiny-random", "train_share": 0.1, "max_steps": 4, "progress": False}
    donor = train(**common, method="rst:share=0.5", output=tmp_path / "donor")
    last = donor.record["train"]["steps"][-1]["layers"]
    run = train(**common, method=f"transplant:run={tmp_path / 'donor'}", seed=5)
    assert [row["layers"] for row in run.record["train"]["steps"]] == [last] * 4
    named = "+".join(map(str, last))
    assert run.config["method"] == f"transplant:layers={named}:run={tmp_path / 'donor'}"


def test_a_finished_transplant_knows_its_layers_without_the_other_run_and_is_not_taken_for_another(tmp_path):
    common = {"corpus": "synthetic", "model": "tiny-random", "train_share": 0.1, "max_steps": 2, "progress": False}
    train(**common, method="fixed:layers=0+2", output=tmp_path / "donor")
    asked = common | {"method": f"transplant:run={tmp_path / 'donor'}:min_layer=0", "output": tmp_path / "run"}
    first = train(**asked).record
    assert train(**asked).record == first
    shutil.rmtree(tmp_path / "donor")
    assert train(**asked).record == first  # with the command as it was, and with the method as it is in the record
    assert train(**asked | {"method": first["run"]["config"]["method"]}).record == first
    with pytest.raises(InputError, match="/gone"):
        train(**asked | {"method": f"transplant:run={tmp_path / 'gone'}"})
    with pytest.raises(InputError, match="'.*donor' is not the folder of a finished run; write transplant:run=FOLDER"):
        train(**asked | {"output": tmp_path / "new"})
    train(**common, method="fixed:layers=1", output=tmp_path / "donor")
    (record,), _ = run_comparison([f"transplant:run={tmp_path / 'donor'}"], seeds=[3], output=tmp_path / "many", **common)
    assert [step["layers"] for step in record["train"]["steps"]] == [[1], [1]]
    assert [path.name[:16] for path in (tmp_path / "many").iterdir()] == ["transplant_run--"]
    with pytest.raises(InputError, match=r"holds another run \(method: 'transplant:layers=0\+2:.* / 'transplant:layers=1:"):
        train(**asked)
    (tmp_path / "donor" / "record.json").write_text(json.dumps({"train": {"steps": []}}))
    with pytest.raises(InputError, match="not the folder of a finished run"):
        make_strategy(f"transplant:run={tmp_path / 'donor'}").worst_case(4)


def test_a_probe_changes_nothing_while_it_measures_and_then_the_best_share_learns():
    tuner = make_tuner("probe:batches=3:share=0.34:score=l2", steps=10)
    before, seen = weights(tuner), []
    for batch in BATCHES[:3]:
        assert step(tuner, batch) == [0, 1, 2, 3, 4, 5]
        assert all(map(torch.equal, weights(tuner), before)) and not tuner.optimizer.state
        seen.append(list(tuner.scores))
    expected = []  # measured again by hand: each batch alone, with weights that never moved
    for batch in BATCHES[:3]:
        tuner.model.zero_grad()
        tuner.layers.freeze_all_but(range(6))
        tuner.model(**batch).loss.backward()
        expected.append([sum(p.grad.norm() ** 2 for p in layer).sqrt().item() for layer in tuner.layers.parameters])
    tuner.model.zero_grad()
    assert np.allclose(seen[-1], np.mean(expected, axis=0), rtol=1e-4) and not np.allclose(seen[-1], expected[-1])
    best = sorted(np.argsort(seen[-1])[-2:].tolist())
    assert step(tuner) == best
    middle = make_tuner("probe:batches=3:share=0.34:score=l2", steps=10)
    middle.load_state_dict(json.loads(json.dumps(tuner.state_dict())))
    assert [step(t) for t in (tuner, middle) for _ in range(3)] == [best] * 6
    assert tuner.scores == seen[-1] and [row["skipped"] for row in tuner.history[:4]] == [True] * 3 + [False]


def test_sampled_layers_change_every_few_steps_and_follow_their_scores():
    scores = [1.0] * 10 + [3.0] * 10
    sets = drawn("sampled:every=5:share=0.25", steps=3000, scores=scores)
    assert all(sets[i] == sets[i - i % 5] for i in range(3000)) and len({*map(tuple, sets)}) > 100

    def shares(text):
        return np.bincount(np.concatenate(drawn(text, steps=3000, scores=scores)), minlength=20) / 3000

    likely = shares("sampled:every=1:share=0.05:epsilon=0.1")  # one layer a draw, so that the formula itself shows
    powers = np.exp(np.array(scores) / 2 / 0.5)
    assert np.allclose(likely, 0.9 * powers / powers.sum() + 0.1 / 20, atol=0.02)
    assert np.allclose(shares("sampled:every=1:share=0.05:epsilon=1"), 0.05, atol=0.02)
    unmeasured = drawn("sampled:every=1:share=0.05:epsilon=0:temperature=0.05", scores=[None, 1.0, 2.0, 1.0], count=4)
    assert {*map(tuple, unmeasured)} == {(0,), (2,)}  # what was not measured counts as the highest


def test_the_rms_of_a_gradient_does_not_grow_with_the_layer():
    small, large = np.full(10, 0.3), np.full(1000, 0.3)
    assert gradient_score([np.linalg.norm(small)], "rms", 10) == pytest.approx(0.3)
    halves = [np.linalg.norm(half) for half in np.split(large, 2)]
    assert gradient_score(halves, "rms", 1000) == pytest.approx(0.3) != gradient_score(halves, "l2", 1000)
    tuner = make_tuner("ir:score=rms")
    tuner.begin_step()
    tuner.model(**BATCHES[0]).loss.backward()
    chosen, grads = tuner._chosen, [[p.grad.clone() for p in ps if p.grad is not None] for ps in tuner.layers.parameters]
    tuner.end_backward(max_norm=None)
    for position in chosen:
        values = torch.cat([g.flatten() for g in grads[position]])
        assert tuner.scores[position] == pytest.approx(values.square().mean().sqrt().item(), rel=1e-4)

"""The script that goes around the circle of annotation: what it trains on and scores, and its committed record."""

import json
import sys
from dataclasses import replace

import nbformat
import pytest

from irtuning import load_corpus
from irtuning.companion.paths import REPOSITORY, notebook_path

sys.path.append(str(REPOSITORY / "reports" / "annotation"))
import circle  # noqa: E402

SYNTHETIC = load_corpus("synthetic")


def test_a_circle_labels_the_pool_alone_and_scores_every_validation_revision(tmp_path, monkeypatch):
    monkeypatch.setattr(circle, "OPTIONS", circle.OPTIONS | {"model": "tiny-random", "max_length": 48})
    monkeypatch.setattr(circle, "STEPS", 2)
    monkeypatch.setattr(circle, "ROUNDS", (("random", 20), ("random", 24), ("mixed", 24)))
    corpus = replace(SYNTHETIC, validation=SYNTHETIC.validation[:50])
    rows, records = circle.circle(corpus, 171, tmp_path)
    paths = tmp_path.glob("*.jsonl")
    answers = {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}
    truth = {r.id: r.intention for r in corpus.train}
    assert all(row["label"] == truth[row["id"]] for given in answers.values() for row in given)
    assert [len(answers[name]) for name in ("random20", "random24", "mixed24")] == [20, 24, 24]
    first, second, third = ([row["id"] for row in given[:20]] for given in answers.values())
    assert first == second == third
    assert {a["drawn"] for a in answers["mixed24"][20:]} == {"uncertain", "random"}
    assert [record["run"]["split_sizes"]["train"] for record in records] == [20, 24, 24]
    assert all(sum(map(sum, row["confusions"])) == 50 and 0 < row["floor"] < 1 for row in rows)
    assert [row["order"] for row in rows] == ["random", "random", "mixed"]


def test_an_intention_that_was_not_met_is_unknown_to_the_run_and_no_true_label_is_in_what_is_predicted():
    given = {r.id: r.intention for r in SYNTHETIC.train[:40] if r.intention not in ("style", "clarity")}
    known = circle.known_to(SYNTHETIC, given)
    assert set(known.labels) == set(given.values()) and "style" not in known.labels and len(known.train) == len(given)
    assert len(known.test) == len(SYNTHETIC.validation) and {r.intention for r in known.test} == {known.labels[0]}


def test_the_committed_record_has_numbers_of_real_corpora_and_no_text():
    record = json.loads(circle.RECORD.read_text())
    made = {(row["corpus"], row["seed"], row["order"], row["labels"]) for row in record["rows"]}
    expected = {(c, seed, *of) for c in circle.CORPORA for seed in circle.SEEDS for of in circle.ROUNDS}
    assert made == expected and len(record["rows"]) == len(expected)
    for row in record["rows"]:
        assert {name for name, value in row.items() if isinstance(value, str)} == {"corpus", "order"}
        right = [counts[i] for i, counts in enumerate(row["confusions"])]
        sizes = [sum(of) + sum(counts[i] for counts in row["confusions"]) for i, of in enumerate(row["confusions"])]
        f1 = [2 * r / s for r, s in zip(right, sizes, strict=True)]
        assert row["macro_f1"] == pytest.approx(sum(f1) / len(f1), abs=1e-4)
        assert sum(map(sum, row["confusions"])) == record["corpora"][row["corpus"]]["validation"]
    text = " ".join(c["source"] for c in nbformat.read(notebook_path("06_your_own_revisions"), 4).cells if c["cell_type"] == "markdown")
    each = min(row["steps"] * circle.OPTIONS["batch_size"] / row["labels"] for row in record["rows"])
    said = f"has {record['pool']} revisions of a training part", f"at least {circle.STEPS} steps", "two seeds", "six times"
    assert all(words in text for words in said) and len(circle.SEEDS) == 2 and each == 6
    assert record["stamp"].startswith("iterater (real), argrewrite (real) · mini (11.7 M parameters)")

"""The annotation panel, without a browser: its buttons, keys, files, order, and what is recorded."""

import json

import pandas
import pytest

import irtuning
from irtuning.companion import annotate as module
from irtuning.companion.annotate import annotate
from irtuning.corpora.base import Revision
from irtuning.errors import InputError
from irtuning.training.classifier import Prediction

LABELS = ["grammar", "style"]
PAIRS = [Revision(f"r{i}", f"He go {i}.", f"He goes {i}.", "", group=f"w{i}" * (i % 2)) for i in range(8)]


class Known:
    """A classifier that is the less certain, the higher the number of the revision."""
    labels = LABELS

    def predict(self, revisions):
        shares = [0.9 - 0.05 * int(r.id[1:]) for r in revisions]
        return [Prediction("grammar", {"grammar": share, "style": 1 - share}) for share in shares]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_button_and_key_does_its_part_and_each_answer_is_written_at_once(tmp_path):
    path = tmp_path / "sub" / "labels.jsonl"
    panel = annotate(PAIRS, LABELS, output=path, annotator="ana", seed=1)
    first = panel.current
    assert "goes" in panel.text.value and "text-decoration:line-through" in panel.text.value
    assert list(panel.buttons) == ["grammar", "style", "next", "undo"]
    panel.note.value = "why?"
    panel.buttons["style"].click()
    (row,) = lines(path)
    assert (row["id"], row["label"], row["note"], row["annotator"], row["suggestion"]) == (first.id, "style", "why?", "ana", None)
    assert not row["seen"] and row["time"].endswith("+00:00") and row.get("group", "") == first.group
    assert panel.current != first and panel.note.value == "" and panel.progress.value == "1 of 8: 1 style"
    skipped = panel.current
    panel.key.value = "n"
    assert panel.key.value == "" and panel.current != skipped
    panel.key.value = "1"
    panel.key.value = "x"  # no key
    assert [row["label"] for row in lines(path)] == ["style", "grammar"] and panel.bar.value == 2
    second = lines(path)[1]["id"]
    panel.buttons["undo"].click()
    assert panel.current.id == second and len(lines(path)) == 1
    panel.key.value = "11111111111"  # as if pressed quickly: more often than there are revisions
    assert panel.current is None and len(lines(path)) == 8 and lines(path)[-1]["id"] == skipped.id
    assert "All are labelled" in panel.text.value and not list(path.parent.glob("*.tmp"))


def test_a_suggestion_is_shown_after_the_first_choice_or_before_and_that_is_recorded(tmp_path):
    panel = annotate(PAIRS, suggestions=Known(), output=tmp_path / "a.jsonl", annotator="ana", order="uncertain")
    assert panel.current.id == "r7" and panel.suggestion.value == ""
    panel.choose("style")
    assert "0.55" in panel.suggestion.value and panel.current.id == "r7"
    assert [(row["first"], row["label"], row["seen"]) for row in lines(tmp_path / "a.jsonl")] == [("style", "style", False)]
    panel.choose("grammar")  # changes it
    panel.choose("grammar")
    panel.next()  # keeps it
    assert panel.current.id == "r5" and panel.suggestion.value == ""
    rows = lines(tmp_path / "a.jsonl")
    assert [(row["first"], row["label"], row["seen"]) for row in rows] == [("style", "grammar", True), ("grammar", "grammar", True)]
    assert rows[0]["suggestion"]["grammar"] == pytest.approx(0.55) and {row["show"] for row in rows} == {"after"}
    panel.undo()  # its suggestion was seen
    assert panel.current.id == "r6" and "0.60" in panel.suggestion.value
    panel.choose("style")
    assert lines(tmp_path / "a.jsonl")[-1]["seen"] and panel.current.id == "r5"
    panel = annotate(PAIRS, suggestions=Known(), output=tmp_path / "b.jsonl", annotator="ana", show="before", order="random")
    assert "<meter" in panel.suggestion.value
    panel.choose("style")
    assert [(row["seen"], row["show"], row["drawn"]) for row in lines(tmp_path / "b.jsonl")] == [(True, "before", "random")]


def test_one_goes_on_where_one_stopped_and_never_over_another_annotators_answers(tmp_path, monkeypatch):
    path, options = tmp_path / "labels.jsonl", {"labels": LABELS, "annotator": "ana"}
    stale, panel = (annotate(PAIRS, output=path, **options) for _ in range(2))
    panel.choose("style")
    saved = path.read_text()
    stale.choose("grammar")  # it was opened before the answer
    assert path.read_text() == saved and "was changed elsewhere" in stale.suggestion.value and stale.bar.value == 0
    ben = annotate(PAIRS, output=tmp_path / "other.jsonl", **options | {"annotator": "ben"})
    monkeypatch.setattr(ben, "path", path)
    ben.choose("style")
    assert path.read_text() == saved and "<b>Not saved.</b>" in ben.suggestion.value
    with pytest.raises(InputError, match="has answers of 'ana'; give another output to 'ben'"):
        annotate(PAIRS, LABELS, output=path, annotator="ben")
    again = annotate(PAIRS, output=path, **options)
    assert again.current == panel.current and again.bar.value == 1
    monkeypatch.setattr(module, "write_bytes", lambda *_: (_ for _ in ()).throw(InputError("disk full")))
    again.choose("style")
    assert "disk full" in again.suggestion.value
    assert path.read_text() == saved and again.current == panel.current


def test_answers_to_other_texts_are_neither_taken_for_ones_own_nor_removed(tmp_path):
    path, more = tmp_path / "labels.jsonl", [Revision("q1", "a", "b", "", "w"), Revision("q2", "a", "c", "")]
    table = pandas.DataFrame({"before": ["a", "b"], "after": ["x", "y"], "group": ["w1", "w2"], "labels": [1, 2]})
    panel = annotate(table, LABELS, output=path, annotator="ana")  # rows have their numbers as ids
    panel.choose("style")
    assert lines(path)[0]["group"] in ("w1", "w2")
    with pytest.raises(InputError, match="has an answer to another text with the id '[12]'; give another output"):
        annotate(table.assign(before=["c", "d"]), LABELS, output=path, annotator="ana")
    with pytest.raises(InputError, match=r"labels are \[\]; give 2 to 33 different"):
        annotate(table, output=path, annotator="ana")  # its column labels has no intentions
    panel = annotate(more, LABELS, output=path, annotator="ana")
    panel.undo()
    assert len(lines(path)) == 1 and panel.bar.value == 0  # the answer to the table stays
    panel.note.value = "of one"
    panel.next()
    assert panel.note.value == ""
    panel.note.value = "of the other"
    panel.choose("style")
    panel.undo()
    assert panel.note.value == "of the other" and len(lines(path)) == 1


def test_a_file_that_was_edited_by_hand_is_kept_or_refused(tmp_path):
    path, options = tmp_path / "labels.jsonl", {"labels": LABELS, "annotator": "ana"}
    panel = annotate([*PAIRS, Revision("é", "naïve café", "naïve", "")], output=path, **options)
    while panel.current:
        panel.choose("style")
    edited = path.read_text().replace("\n", "\r\n").replace('"note": ""', '"note": "déjà vu"')
    path.write_bytes(edited.encode("cp1252"))
    panel.undo()
    assert path.read_bytes() == edited.encode("cp1252") and "was changed elsewhere" in panel.suggestion.value
    with pytest.raises(InputError, match="labels.jsonl is not UTF-8"):  # a guess would be written back
        annotate(PAIRS, output=path, **options)
    path.write_bytes(edited.encode("utf-8-sig"))
    annotate([*PAIRS, Revision("new", "x", "y", "")], output=path, **options).choose("grammar")
    assert len(lines(path)) == 10 and [row["note"] for row in lines(path)] == ["déjà vu"] * 9 + [""]
    path.write_text('{"id": "r1", "before": "a", "after": "b", "label": "style"}\n')
    with pytest.raises(InputError, match="line 1: unknown column 'annotator'"):
        annotate(PAIRS, output=path, **options)
    broken = annotate([Revision("s", "half of a \ud83d", "b", "")], output=tmp_path / "new.jsonl", **options)
    broken.choose("style")
    assert "<b>Not saved.</b>" in broken.suggestion.value and broken.current and not (tmp_path / "new.jsonl").exists()


def test_uncertain_and_random_items_alternate_and_each_answer_says_how_it_came(tmp_path):
    panel = annotate(PAIRS, suggestions=Known(), output=tmp_path / "a.jsonl", annotator="ana", show="before")
    for _ in range(5):
        panel.choose("style")
    rows = lines(tmp_path / "a.jsonl")
    assert {row["drawn"] for row in rows} == {"random", "uncertain"}
    assert next(row["id"] for row in rows if row["drawn"] == "uncertain") in ("r7", "r6")
    assert sorted(panel.drawn) == sorted(r.id for r in PAIRS)
    assert all(panel.ranks[row["id"]] == row["random_rank"] for row in rows) and sorted(panel.ranks.values()) == list(range(8))
    shuffled = sorted(panel.ranks, key=panel.ranks.get)
    drawn = [row["id"] for row in rows if row["drawn"] == "random"]
    assert drawn == [name for name in shuffled if name in drawn]  # in the random order
    again = annotate(PAIRS, suggestions=Known(), output=tmp_path / "a.jsonl", annotator="ana", show="before")
    assert again.queue == panel.queue and again.bar.value == 5


def test_tables_files_corpora_and_names_are_taken(tmp_path):
    table = pandas.DataFrame({"Before": ["a", "b", "c", None], "after": ["x", "b", "z", "new"]})
    panel = annotate(table, LABELS, output=tmp_path / "a.jsonl", annotator="ana")
    assert {name: r.before for name, r in panel.revisions.items()} == {"1": "a", "3": "c", "4": ""}  # b was not revised
    table.assign(id=["p", "q", "r", "s"]).to_csv(tmp_path / "t.csv", index=False)
    assert list(annotate(tmp_path / "t.csv", LABELS, output=tmp_path / "b.jsonl", annotator="x").revisions) == ["p", "r", "s"]
    panel = annotate(irtuning.load_corpus("synthetic"), output=tmp_path / "c.jsonl", annotator="ana")
    assert len(panel.revisions) == 1600 and list(panel.buttons)[:2] == ["clarity", "fluency"]
    with pytest.raises(InputError, match="unknown column 'after'"):
        annotate(table[["Before"]], LABELS)


def test_a_run_suggests_and_the_answers_train_the_next_run_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus, tiny = irtuning.load_corpus("synthetic"), {"model": "tiny-random", "max_steps": 2, "max_length": 32, "progress": False}
    irtuning.train(corpus=corpus, output="run", **tiny)
    panel = irtuning.annotate(corpus.train[:80], suggestions="run", annotator="ana", show="before")
    truth = {r.id: r.intention for r in corpus.train}
    while panel.current:
        panel.choose(truth[panel.current.id])
    run = irtuning.train(corpus="labels.jsonl", output="next", **tiny)
    assert set(run.record["run"]["labels"]) == set(corpus.labels) and len(lines(tmp_path / "labels.jsonl")) == 80
    assert annotate(corpus.train[:80], suggestions="next", annotator="ana").current is None


@pytest.mark.parametrize(("options", "message"), [
    ({"show": "aftr"}, "show is 'aftr', give after or before"), ({"order": "randm"}, "order is 'randm', give mixed"),
    ({"order": "mixed"}, "needs suggestions"), ({"labels": ["a"]}, r"labels are \['a'\]; give 2 to 33 different"),
    ({"labels": ["a", "a"]}, "different"), ({"table_or_corpus": PAIRS * 2}, "an id occurs twice"),
    ({"output": "labels.csv"}, "end its name in .jsonl"), ({"suggestions": "absent"}, "no run in absent"),
])  # fmt: skip
def test_bad_input_is_told_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        annotate(**{"table_or_corpus": PAIRS, "labels": LABELS, "output": tmp_path / "x.jsonl", "annotator": "a"} | options)
    assert not list(tmp_path.iterdir())

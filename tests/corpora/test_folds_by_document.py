"""ITERATER, arXivEdits and TETRA in folds by document: every row against an independent reading, and damaged files."""

import json
import re
import zipfile
from collections import Counter
from dataclasses import replace
from functools import cache
from html import unescape
from itertools import combinations
from pathlib import Path

import pytest

from irtuning.analysis.ceiling import ANOTHER, MAJORITY, human_ceiling
from irtuning.corpora import tetra
from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.floors import macro_f1
from irtuning.corpora.load import load_corpus
from irtuning.corpora.sources import CORPORA
from irtuning.corpora.tabular import ITERATER_ANNOTATORS, ITERATER_LABELS
from irtuning.errors import InputError
from irtuning.training.config import RunConfig
from irtuning.training.prepare import corpus_of

# corpus: labelled rows, documents, checksum digits of each fold (runs are recorded, so folds must never change),
# and rows and documents of the shared validation part
FOLDED = {
    "iterater": (3960, 427, "80dec8fd 7da03383 27093241 3e50e29b 00e642e9", 388, 40),
    "arxivedits": (2122, 362, "047d945a 588b2e00 f6fd7738 f29d0184 c1920d72", 213, 35),
    "tetra": (3614, 64, "aff01f5d 4a5c2796 4b29cd56 e18a5217 fdc9cd5f", 354, 6),
}


def rows_of(corpus: Corpus) -> list[Revision]:
    return [r for split in SPLITS for r in corpus.split(split)]


@pytest.fixture(scope="module")
def folded(real_data):
    """Load the five folds of a corpus once."""
    return cache(lambda name: [load_corpus(name, real_data, fold, split="folds") for fold in range(5)])


@pytest.mark.parametrize("name", FOLDED)
def test_each_row_is_tested_once_no_document_is_in_two_parts_and_choices_on_folds_0_to_3_touch_no_test(folded, name):
    folds, (count, documents, checksums, shared, shared_documents) = folded(name), FOLDED[name]
    assert [corpus.checksum[:8] for corpus in folds] == checksums.split()
    rows = {r.id: r for r in rows_of(folds[0])}
    assert len(rows) == count and all({r.id: r for r in rows_of(corpus)} == rows for corpus in folds)
    assert Counter(r.id for corpus in folds for r in corpus.test) == Counter(list(rows))
    for corpus in folds:
        groups = [{r.group for r in corpus.split(split)} for split in SPLITS]
        assert sum(map(len, groups)) == len(set.union(*groups)) == documents and corpus.shared_groups == 0
        assert {len(corpus.labels)} == {len({r.intention for r in corpus.split(split)}) for split in SPLITS}
        of_all = Counter(r.intention for r in rows.values())
        assert all(abs(corpus.counts()["test"][label] / n - 0.2) < (0.06 if name == "tetra" else 0.02)
                   for label, n in of_all.items() if n > 100)  # fmt: skip
    validation, last = folds[0].validation, folds[4]
    assert all(corpus.validation == validation for corpus in folds[:4])
    assert (len(validation), len({r.group for r in validation})) == (shared, shared_documents)
    assert {r.id for r in validation} <= {r.id for r in last.test}
    assert {r.id for r in last.validation} <= {r.id for corpus in folds[:4] for r in corpus.test}


def published_rows(real_data) -> dict[str, dict]:
    """Return each line of the sentence level by id, with the annotators' labels of the edit in the same place."""
    rows = {}
    with zipfile.ZipFile(real_data / "iterater" / ITERATER_ANNOTATORS) as archive:
        for split, name in zip(SPLITS, ("train", "dev", "test"), strict=True):
            lines = (real_data / "iterater" / f"{name}.json").read_text().splitlines()
            documents = map(json.loads, archive.read(f"human_doc_level/{name}.json").decode().splitlines())
            given = [edit["raw_intents"] for document in documents for edit in document["edit_actions"]]
            for number, (line, labels) in enumerate(zip(lines, given, strict=True), 1):
                rows[f"iterater_{split}:{number}"] = json.loads(line) | {"annotators": labels}
    return rows


def test_iterater_is_the_published_files_row_by_row_with_all_three_annotators(real_data, folded):
    expected = published_rows(real_data)
    assert len(expected) == 4018
    labelled = {name: row for name, row in expected.items() if row["labels"] != "others"}
    for r in rows_of(folded("iterater")[0]):
        row = labelled.pop(r.id)
        texts = row["before_sent"].strip(), row["after_sent"].strip()
        assert (r.before, r.after, r.intention, r.group) == (*texts, row["labels"], row["doc_id"])
        assert r.extra["annotators"] == tuple(row["annotators"])
    assert not labelled and folded("iterater")[0].dropped == {"others": 58}


def test_the_published_split_of_iterater_has_the_published_counts_and_says_that_it_shares_documents(real_data, caplog):
    corpus = load_corpus("iterater", real_data, split="published")
    columns = {"clarity": (1258, 157, 186), "fluency": (739, 115, 88), "coherence": (311, 46, 36),
               "style": (100, 13, 15), "meaning-changed": (807, 54, 35)}  # fmt: skip
    assert corpus.counts() == {s: {label: n[i] for label, n in columns.items()} for i, s in enumerate(SPLITS)}
    said = "29 groups in several splits"
    assert corpus.shared_groups == 29 and said in repr(corpus) and f"iterater, {said}: " in caplog.text
    config = RunConfig.of({"corpus": "iterater", "split": "published"})
    assert corpus_of(config, real_data).checksum == corpus.checksum
    with pytest.raises(InputError, match=r"has 1 fold\(s\), so fold 1 does not exist"):
        load_corpus("iterater", real_data, 1, split="published")
    with pytest.raises(InputError, match="unknown split of corpus 'argrewrite': 'published'. Choose one of: folds"):
        load_corpus("argrewrite", real_data, split="published")


def test_the_human_ceiling_is_that_of_an_independent_calculation(real_data, folded):
    expected = published_rows(real_data)
    pairs = [{True: [], False: []} for _ in SPLITS]  # with the rows labelled others, and without
    for name, row in expected.items():
        split = next(i for i, s in enumerate(SPLITS) if name.startswith(f"iterater_{s}"))
        for with_others in (True, False) if row["labels"] != "others" else (True,):
            pairs[split][with_others] += combinations(row["annotators"], 2)
    score = lambda part: macro_f1(ITERATER_LABELS, *zip(*part, *((b, a) for a, b in part)))  # noqa: E731
    assert [round(score(part[True]), 3) for part in pairs] == [0.551, 0.523, 0.621]  # of all published rows
    published = load_corpus("iterater", real_data, split="published")
    found = [human_ceiling(published, split, draws=10)[0].macro_f1 for split in SPLITS]
    assert found == pytest.approx([score(part[False]) for part in pairs])
    another, majority = human_ceiling(folded("iterater")[0])
    assert (another.name, majority.name, another.rows, another.joined) == (ANOTHER, MAJORITY, 388, 388)
    numbers = [another.macro_f1, another.macro_f1_low, another.macro_f1_high, majority.macro_f1]
    assert [round(number, 3) for number in numbers] == [0.568, 0.508, 0.629, 0.648]
    answers = [expected[r.id]["annotators"] for r in folded("iterater")[0].validation]
    truth = [(a, b) for labels in answers for a, b in combinations(labels, 2)]
    assert another.accuracy == pytest.approx(sum(a == b for a, b in truth) / len(truth))
    others = [(a, b) for one in answers for i, a in enumerate(one) for b in {*one[:i], *one[i + 1 :]}
              if len({*one[:i], *one[i + 1 :]}) == 1]  # fmt: skip
    assert majority.accuracy == pytest.approx(sum(a == b for a, b in others) / len(others))
    assert majority.macro_f1 == pytest.approx(macro_f1(ITERATER_LABELS, *zip(*others, strict=True)))


@pytest.fixture
def small_iterater(tmp_path, monkeypatch) -> Path:
    """Write an ITERATER of 22 rows a split, the last ones labelled others, with three annotators. It may be loaded."""
    monkeypatch.setitem(CORPORA, "iterater", replace(CORPORA["iterater"], checksum=""))
    folder, edits = tmp_path / "iterater", {}
    folder.mkdir()
    for name in ("train", "dev", "test"):
        rows = [dict(before_sent=f" a {i} {name}", after_sent=f"b {i}", doc_id=f"{name}{i // 2}", labels=label,
                     revision_depth=1) for i, label in enumerate([*ITERATER_LABELS * 4, "others", "others"])]  # fmt: skip
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
        edits[name] = [{"before": "a", "after": "b", "major_intent": row["labels"], "raw_intents": [row["labels"]] * 3}
                       for row in rows]  # fmt: skip
    document_level(folder, edits)
    return folder


def document_level(folder: Path, edits: dict[str, list]) -> None:
    with zipfile.ZipFile(folder / ITERATER_ANNOTATORS, "w") as made:
        for name, of in edits.items():
            made.writestr(f"human_doc_level/{name}.json", json.dumps({"edit_actions": of}))


def test_iterater_from_disk_with_and_without_its_document_level(small_iterater, monkeypatch):
    monkeypatch.setenv("IRTUNING_DATA", str(small_iterater.parent))
    corpus = load_corpus("iterater", split="published")
    assert [len(corpus.split(split)) for split in SPLITS] == [20, 20, 20] and len(load_corpus("iterater").test) > 8
    r = corpus.validation[3]
    assert (r.before, r.after, r.intention, r.group) == ("a 3 dev", "b 3", "style", "dev1")
    assert r.extra == {"revision_depth": 1, "annotators": ("style",) * 3}
    rows = (small_iterater / "dev.json").read_text().replace('" a 0 dev"', '"other"').replace('"b 2"', '"other"')
    (small_iterater / "dev.json").write_text(rows)  # two rows whose edit the document level lacks
    ceiling = human_ceiling(load_corpus("iterater", split="published"))[0]
    assert (ceiling.rows, ceiling.joined, ceiling.macro_f1) == (20, 18, 1)
    document_level(small_iterater, {"train": [], "dev": [], "test": []})
    with pytest.raises(InputError, match="human_doc_level.zip does not fit .*get it again"):
        load_corpus("iterater")
    (small_iterater / ITERATER_ANNOTATORS).write_bytes((small_iterater / ITERATER_ANNOTATORS).read_bytes()[:99])
    with pytest.raises(InputError, match="human_doc_level.zip does not fit .*move it away to do without"):
        load_corpus("iterater")
    (small_iterater / ITERATER_ANNOTATORS).unlink()
    assert human_ceiling(load_corpus("iterater")) == []


EDIT = re.compile(r'<edit type="?(.*?)"? crr= ?"(.*?)" comments=".*?">(.*?)</edit>', re.DOTALL)


def words(text: str) -> list[str]:
    return re.sub(r"(\\n(?![a-z])|\\)+", " \\\\\\\\ ", unescape(text)).split()


def test_tetra_has_every_edit_of_an_independent_reading_in_its_place(real_data):
    paths, kinds = sorted((real_data / "tetra" / "original").glob("*.xml")), Counter()
    map_ = dict(re.findall(r"'(\w+)': (.*)", (real_data / "tetra" / "aspect_edit-type_map.txt").read_text()))
    assert {name: tuple(re.findall("'(.*?)'", text)) for name, text in map_.items()} == tetra.ASPECTS
    rows = {path: list(tetra.read_edits(path)) for path in paths}
    for path in paths:
        text = re.sub("</?text>", " ", path.read_text(encoding="utf-8"))
        sides = [" ".join(w for w in words(re.sub("<[^>]*>", " ", EDIT.sub(keep, text))) if w != r"\\")
                 for keep in (r" \3 ", r" \2 ")]  # fmt: skip
        found = EDIT.findall(text)
        assert [r.id for r in rows[path]] == [f"{path.stem}-{n + 1}" for n in range(len(found))]
        for r, (kind, new, old) in zip(rows[path], found, strict=True):
            kinds[kind] += 1
            marked = [t.split()[slice(*span)] if span else []
                      for t, span in ((r.before, r.before_span), (r.after, r.after_span))]  # fmt: skip
            assert marked == [words(old), words(new)] and r.group == path.stem[:-2] and r.extra == {"labels": kind}
            aspects = [name for part in kind.split(";") for name, of in tetra.ASPECTS.items() if part in of]
            assert r.intention == (aspects[0] if aspects else "")
            assert all(t.replace(r"\\ ", "").removesuffix(r"\\").strip() in side
                       for t, side in zip((r.before, r.after), sides, strict=True)), r.id  # fmt: skip
    counts = {"word choice": 581, "clarity": 488, "grammar": 413, "punctuation": 401, "readability": 297, "style": 192}
    assert {kind: kinds[kind] for kind in counts} == counts and len(paths) == 192
    # of 3,616 elements one changes nothing, and that one and the malformed one have no label
    everything = [r for of_file in rows.values() for r in of_file]
    assert sum(bool(r.before_span or r.after_span) for r in everything) == 3615 and kinds[""] == 2


def test_tetra_drops_and_counts_labels_outside_the_map(tmp_path):
    (tmp_path / "original").mkdir()
    for i in range(40):
        kinds = ["odd;style", "odd", "clarity ; grammar", *(of[0] for of in tetra.ASPECTS.values())]
        edits = "".join(f'<text>A b.</text><edit type="{kind}" crr="New" comments="">Old</edit><text>c.</text>' for kind in kinds)
        (tmp_path / "original" / f"P{i:02}-1000-A.xml").write_text(f"<doc><abstract>{edits}</abstract></doc>")
    corpus = tetra.load_tetra(tmp_path)
    assert corpus.dropped == {"odd": 40} and len(rows_of(corpus)) == 360
    first = next(r for r in rows_of(corpus) if r.id == "P00-1000-A-1")
    assert (first.before, first.after_span, first.intention) == ("Old c.", (0, 1), "Style")


SHAPES = [  # text of a section, before, after
    ('<text>One. Two</text><edit type="style" crr="three">3</edit><text>four. Five.</text>',
     "Two <edit> 3 </edit> four.", "Two <edit> three </edit> four."),
    (r'<text>One et al. Two \\ (e.g. B)</text><edit type="style" crr="."></edit><text>And more. Six</text>',
     "(e.g. B) And more.", "(e.g. B) <edit> . </edit> And more."),
    ('<text>It is</text><edit type="style" crr="">so</edit><text>a</text><edit type="odd" crr="B">b</edit>',
     "It is <edit> so </edit> a b", "It is a B"),
    (r'<text>One: two;</text><edit type="style" crr="\\ And &lt;b&gt;">\\ a</edit>,<text>c</text>',
     r"<edit> \\ a </edit> , c", r"<edit> \\ And <b> </edit> , c"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "before", "after"), SHAPES)
def test_a_tetra_revision_is_the_sentence_around_an_edit_with_the_other_edits_made(tmp_path, section, before, after):
    path = tmp_path / "P01-0001-A.xml"
    path.write_text(f"<doc><abstract>{section}</abstract></doc>")
    assert next(tetra.read_edits(path)).texts() == (before, after)


def test_the_known_fault_of_tetra_is_repaired(real_data):
    rows = tetra.read_edits(real_data / "tetra" / "original" / "P17-1188-C.xml")
    row = next(r for r in rows if r.extra["labels"] == "")
    assert "<edit> carried out. </edit>" in row.texts()[1] and row.intention == ""


@pytest.mark.parametrize("name", FOLDED)
def test_the_published_files_have_the_stated_checksum(real_data, name):
    source = CORPORA[name]
    assert source.digest(real_data / name) == source.checksum and "folds" in source.splits

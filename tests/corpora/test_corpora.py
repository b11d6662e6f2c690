"""The corpus loaders: the published corpora row by row, the paper's two, your own tables, damaged files."""

import csv
import hashlib
import json
import random
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import openpyxl
import pytest

from irtuning.corpora import argrewrite, sources
from irtuning.corpora.argrewrite import FINE_LABELS, LISTS, read_workbook
from irtuning.corpora.arxivedits import read_edits
from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.explore import corpora_table
from irtuning.corpora.folds import assign_folds, cut
from irtuning.corpora.load import has_fixed_splits, load_corpus
from irtuning.corpora.reading import read_rows
from irtuning.corpora.sources import CORPORA, CorpusSource, register_corpus
from irtuning.corpora.tabular import ARGREVISION_LABELS
from irtuning.errors import InputError

# Runs of these corpora are recorded, so they must never change: the first digits of the checksum of each fold.
CHECKSUMS = {
    ("argrewrite", "fine"): ["e25b02e568c0", "3920dc925117", "c68c0b5b1bd9", "c12e1a2aaba5", "f1db14a07d9f"],
    ("argrewrite", "coarse"): ["44d5979be711", "88d61786c241", "12247eef6665", "c5e563d5aa88", "447230d475cb"],
    ("arxivedits", "fine"): ["03e675ecb5a0"],
    ("arxivedits", "coarse"): ["15b2e2532d5a"],
}


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_book(path: Path, **sheets: list[list]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, grid in sheets.items():
        sheet = book.create_sheet(title.replace("_", " "))
        [sheet.append(row) for row in grid]
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".xlsx":
        return write_book(path, S=[list(rows[0]), *(list(row.values()) for row in rows)])
    if path.suffix in (".json", ".jsonl"):
        return write_jsonl(path, rows)
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file, "excel-tab" if path.suffix == ".tsv" else "excel", quoting=csv.QUOTE_ALL)
        table.writerows([rows[0].keys(), *(row.values() for row in rows)])
    return path


def own_rows(count: int = 24) -> list[dict]:
    return [dict(before=f"old {i}", after=f"new {i}", label="ab"[i % 2], who=f"w{i % 12}") for i in range(count)]


GOOD = "\n".join([",".join(own_rows()[0]), *(",".join(row.values()) for row in own_rows())]) + "\n"
COLUMNS = ("Sentence Index", "Sentence Content", "Aligned Index", "Identical?", LISTS[1], LISTS[2], LISTS[0])
MARK = ["Claims/Ideas", "Modify", "7"]
OLD = [[1, "Same.", "1", 1], [2, "An old  claim.", "2", 0, *MARK]]
NEW = [OLD[0], [2, "A new claim.", "2", 0, *MARK], [3, "Proof.", "ADD", None, "Evidence,Precision", "Add,Add", "8,9"]]
BOOK = Path("A") / "12" / "Annotation_2018argrewrite_1_NEW.txt.xlsx"


def agree(revisions: list[Revision], real_data: Path, name: str, **fields: str) -> list[dict]:
    """Compare revisions with the independently made reference, of which these are more fields, and return it."""
    path = real_data.parent / "jsonl" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip("IRTUNING_DATA/../jsonl, the joined reference, is absent")
    expected = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    fields |= {"id": "id", "before": "before", "after": "after"}
    rows = [{name: getattr(r, field) for name, field in fields.items()} | r.extra for r in revisions]
    assert json.loads(json.dumps(rows)) == [{name: row[name] for name in rows[0]} for row in expected]
    return expected


@pytest.fixture(scope="module")
def argrewrite_rows(real_data) -> list:
    folder = sources.locate("argrewrite", real_data)
    paths = sorted(folder.glob(CORPORA["argrewrite"].patterns[0]), key=Path.as_posix)
    return [r for path in paths for r in read_workbook(path)]


def test_argrewrite_is_the_reference_row_by_row_and_its_folds_are_disjoint_and_complete(real_data, argrewrite_rows):
    expected = agree(argrewrite_rows, real_data, "argrewrite_v2", essay_id="group")
    assert [r.operation for r in argrewrite_rows] == [row["operation"] for row in expected] and len(expected) == 3320
    assert all(r.intention == r.extra["labels"] for r in argrewrite_rows)
    tested = []
    for fold in range(5):
        parts = cut(argrewrite_rows, fold)
        writers = [{r.group for r in part} for part in parts]
        assert sum(map(len, writers)) == len(set.union(*writers)) == 86 and sum(map(len, parts)) == 3320
        assert all({r.intention for r in part} == set(FINE_LABELS) for part in parts)
        tested += [r.id for r in parts[2]]
    assert len(tested) == len(set(tested)) == 3320


@pytest.mark.parametrize(("split", "count"), [("train", 1254), ("dev", 438), ("test", 430)])
def test_arxivedits_is_the_reference_row_by_row(real_data, split, count):
    rows = list(read_edits(sources.locate("arxivedits", real_data) / "data" / "edits" / f"{split}.json"))
    fields = {"arxiv_id": "group", "before_span": "before_span", "after_span": "after_span"}
    expected = agree(rows, real_data, f"arxivedits_{split}", **fields)
    named = {"add": "Insertion", "delete": "Deletion", "modify": "Substitute"}
    assert [named[r.operation] for r in rows] == [row["edit_type"] for row in expected] and len(rows) == count


def test_published_corpora_have_their_recorded_checksums(real_data, argrewrite_rows, monkeypatch):
    """The workbooks are read once for the ten corpora that are made from them."""
    for (name, labels), checksums in CHECKSUMS.items():
        assert CORPORA[name].digest(sources.locate(name, real_data)) == CORPORA[name].checksum
        for fold, checksum in enumerate(checksums):
            workbooks = iter([argrewrite_rows])
            monkeypatch.setattr(argrewrite, "read_workbook", lambda path: next(workbooks, []))
            corpus = load_corpus(name, real_data, fold, labels=labels)
            assert corpus.checksum.startswith(checksum) and corpus.fold == fold
    assert corpus.counts()["train"] == {"Content": 378, "Language": 364, "Improve-grammar-Typo": 310, "Format": 202}
    assert corpus.licence == "none stated" and len({r.extra["labels"] for r in corpus.train}) == 7
    marked = next(r for r in corpus.validation if r.id == "arxivedits_dev_1_0")
    assert "<edit> Corollary 1 </edit>" in marked.texts()[1] and "<edit>" not in marked.before + marked.after


def test_folds_keep_groups_whole_balance_labels_ignore_row_order_and_need_enough_groups(tmp_path):
    groups, labels = [f"w{i % 12}" for i in range(48)], ["abc"[i % 12 % 3] for i in range(48)]
    folds = assign_folds(groups, labels)
    assert folds == [0, 3, 3, 2, 4, 0, 3, 1, 1, 1, 2, 4] * 4 and assign_folds(groups[::-1], labels[::-1])[::-1] == folds
    path = write_jsonl(tmp_path / "own.jsonl", own_rows(100))
    for fold in range(5):
        counts = load_corpus(path, fold=fold).counts()
        assert (counts["test"], counts["validation"]) == ({"a": 10, "b": 10}, {"a": 5, "b": 5})
    with pytest.raises(InputError, match="3 groups in 30 rows .* cannot be split into 5 folds"):
        assign_folds(["x", "y", "z"] * 10, ["a"] * 30)
    with pytest.raises(InputError, match="0 groups"):
        cut([])


def test_workbook_joins_both_sheets_by_revision_index_and_adds_changed_sentences_by_alignment(tmp_path):
    rows = read_workbook(write_book(tmp_path / BOOK, Old_Draft=[COLUMNS, *OLD], New_Draft=[COLUMNS, *NEW]))
    assert [(r.id, r.before, r.after, r.intention) for r in rows] == [
        ("2018argrewrite_1_12_7", "An old claim.", "A new claim.", "Claims/Ideas"),
        ("2018argrewrite_1_12_8", "", "Proof.", "Evidence"),
        ("2018argrewrite_1_12_9", "", "Proof.", "Precision"),
    ]
    new = [[1, "A new", "2", 0, *MARK], [2, "claim, cut.", "2", 0], [3, "Unrevised.", "2", 1]]
    (row,) = read_workbook(write_book(tmp_path / BOOK, Old_Draft=[COLUMNS, *OLD], New_Draft=[COLUMNS, *new]))
    assert row.after == "A new claim, cut."


def test_a_published_corpus_of_which_a_byte_differs_is_refused(real_data, tmp_path):
    shutil.copytree(sources.locate("arxivedits", real_data) / "data" / "edits", tmp_path / "data" / "edits")
    assert load_corpus("arxivedits", tmp_path).checksum.startswith(CHECKSUMS["arxivedits", "coarse"][0])
    with (tmp_path / "data" / "edits" / "dev.json").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="does not hold the files of 'arxivedits' as published.*Get it from"):
        load_corpus("arxivedits", tmp_path)


def test_argrevision_from_a_spreadsheet_since_it_is_not_public(tmp_path, monkeypatch):
    labels = [*ARGREVISION_LABELS * 20, "claim", "claim"]
    body = [[None if i == 0 else f"o {i}", f"n {i}", label] for i, label in enumerate(labels)]
    path = write_book(tmp_path / "argrevision.xlsx", S=[["old_sentences", "new_sentences", "purpose_labels"], *body])
    corpus = load_corpus("argrevision", tmp_path)
    assert corpus.labels == ("relevant", "irrelevant", "already exists", "LCE", "not LCE", "commentary")
    assert [len(corpus.split(split)) for split in SPLITS] == [96, 12, 12]
    assert [r.id for r in corpus.test[:3]] == ["argrevision:3", "argrevision:65", "argrevision:39"]
    first = next(r for split in SPLITS for r in corpus.split(split) if r.id == "argrevision:2")
    assert (first.before, first.after, first.operation) == ("", "n 0", "add")
    write_book(path, S=[["old_sentences", "new_sentences", "purpose_labels"], *body, ["a", "b", "LCEs"]])
    with pytest.raises(InputError, match="row 124: unknown label 'LCEs'; did you mean 'LCE'"):
        load_corpus("argrevision", tmp_path)
    write_book(path, Sheet1=[["old", "new"], ["a", "b"]])
    with pytest.raises(InputError, match="unknown column 'old_sentences'.*Choose one of: old, new;"):
        load_corpus("argrevision", tmp_path)
    monkeypatch.delenv("IRTUNING_DATA", raising=False)
    with pytest.raises(InputError, match="was not found. Get it from .*not public.*save their spreadsheet as argrevision.xlsx.*IRTUNING_DATA"):
        load_corpus("argrevision")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "xlsx"])
def test_own_file_in_every_format_with_its_own_columns_and_line_breaks(tmp_path, ending):
    rows = [row | {"why": row["label"], "v1": f"{row['before']},\nline two"} for row in own_rows()]
    path = write_table(tmp_path / f"own.{ending}", rows)
    corpus = load_corpus(str(path), before="v1", label="why", group="who", fold=3)
    assert (corpus.name, corpus.labels, corpus.fold) == ("own", ("a", "b"), 3)
    groups = [{r.group for r in corpus.split(split)} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert sorted(r.before for split in SPLITS for r in corpus.split(split)) == sorted(row["v1"] for row in rows)


def test_own_folder_keeps_its_splits(tmp_path):
    for name, count in (("train", 8), ("dev", 4), ("test", 2)):
        write_jsonl(tmp_path / f"{name}.jsonl", own_rows(count))
    assert [len(load_corpus(tmp_path).split(split)) for split in SPLITS] == [8, 4, 2]
    with pytest.raises(InputError, match=r"has 1 fold\(s\), so fold 2 does not exist"):
        load_corpus(tmp_path, fold=2)
    write_jsonl(tmp_path / "validation.jsonl", own_rows(4))
    with pytest.raises(InputError, match="holds .'dev.jsonl', 'validation.jsonl'. for split 'validation'; give one"):
        load_corpus(tmp_path)
    [(tmp_path / f"{name}.jsonl").unlink() for name in ("test", "dev")]
    with pytest.raises(InputError, match="no file for split 'test'; give one, named test . .csv or .tsv"):
        load_corpus(tmp_path)


def test_null_and_nan_are_an_empty_side_but_no_group_and_rows_know_their_line(tmp_path):
    missing = [{"before": (None, float("nan"))[i % 2], "after": f"b {i}", "label": "ab"[i % 2]} for i in range(20)]
    rows = load_corpus(write_jsonl(tmp_path / "own.jsonl", missing)).train
    assert {(r.before, r.operation) for r in rows} == {("", "add")}
    path = write_jsonl(tmp_path / "own.jsonl", [*own_rows(), own_rows()[0] | {"who": None}])
    with pytest.raises(InputError, match="line 25: 'who' is blank"):
        load_corpus(path, group="who")
    (tmp_path / "own.csv").write_text('a,b\n"x\ny",1\n\n2\n', encoding="utf-8")
    rows = [(row.line, dict(row.cells)) for row in read_rows(tmp_path / "own.csv")]
    assert rows == [(3, {"a": "x\ny", "b": "1"}), (5, {"a": "2"})]
    with pytest.raises(InputError, match="absent.csv cannot be read: .*"):
        read_rows(tmp_path / "absent.csv")


BAD_FILES = {
    "empty": ("a.csv", b"", "holds no rows"),
    "missing column": ("a.csv", b"before,text,label\na,b,c\n", "unknown column 'after'. Choose one of: before, text, label;"),
    "blank label": ("a.csv", b"before,after,label\na,b,x\na,b, \n", "a.csv, line 3: 'label' is blank; fill it in"),
    "empty sides": ("a.csv", b"before,after,label\n , ,x\n", "a.csv, line 2: both sides are empty"),
    "long row": ("a.csv", b"before,after,label\na,b,x,y\n", "line 2 has 4 cells for 3 columns"),
    "same name twice": ("a.csv", b"before,after,before\na,b,c\n", "occur twice"),
    "other ending": ("a.docx", b"", "cannot read files that end in '.docx'; give one of .csv"),
    "one example": ("a.csv", (GOOD + "p,q,c,w\n").encode(), "label 'c' has one example, or none in train; merge"),
    "one label": ("a.csv", GOOD.replace(",b,", ",a,").encode(), "it has 1 label"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_say_what_is_wrong_and_where(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_corpus(tmp_path / name)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("iteratr", {}, r"unknown corpus \(nor an existing file or folder\) 'iteratr'; did you mean 'iterater'"),
    ("missing.csv", {}, r"existing file or folder\) 'missing.csv'"), ("", {}, "existing file or folder"),
    ("iterater", {"labels": "coarse"}, "unknown label set of corpus 'iterater': 'coarse'. Choose one of: fine"),
    ("argrewrite", {"fold": 5}, r"has 5 fold\(s\), so fold 5"), ("synthetic", {"fold": 1}, r"has 1 fold\(s\), so fold 1"),
    ("iterater", {"split": "own"}, "unknown split of corpus 'iterater': 'own'. Choose one of: folds, published"),
    ("argrewrite", {"label": "why"}, "has its own columns"),
])  # fmt: skip
def test_impossible_requests(name, options, message):
    with pytest.raises(InputError, match=message):
        load_corpus(name, **options)


def test_every_name_is_known_and_a_corpus_shows_its_sizes_and_computes_its_checksum_once():
    assert [*CORPORA] == ["iterater", "argrevision", "argrewrite", "arxivedits", "tetra", "synthetic"]
    assert [has_fixed_splits(name) for name in CORPORA] == [False, True, False, True, False, True]
    assert [has_fixed_splits(name, kind) for name, kind in (("iterater", "published"), ("arxivedits", "folds"))] == [True, False]
    corpus = load_corpus("synthetic")
    assert repr(corpus) == "Corpus('synthetic', SYNTHETIC, 5 labels, train 1,600, validation 200, test 200, fold 0)"
    assert corpus.checksum is corpus.checksum


def load_mine(folder: Path | None, fold: int, labels: str | None) -> Corpus:
    rows = [Revision(str(i), f"old {i}", f"new {i}", "ab"[i % 2], f"w{i}") for i in range(40)]
    return Corpus("any", ("a", "b"), *cut(rows, fold), fold=fold)


@mock.patch.dict(CORPORA)  # undoes the registration
def test_a_registered_corpus_works_wherever_a_name_does(tmp_path):
    from typer.testing import CliRunner

    from irtuning.cli import app
    from irtuning.companion.experiments import Companion

    facts = {"labels": ("a", "b"), "home": "here", "licence": "CC0", "splits": ("folds",)}
    register_corpus("mine", CorpusSource(load=load_mine, **facts))
    corpus = load_corpus("mine", fold=2)
    assert (corpus.name, corpus.fold, corpus.licence) == ("mine", 2, "CC0") and "mine" in CORPORA
    assert corpora_table().loc["mine", ["labels", "licence", "home"]].tolist() == ["a, b", "CC0", "here"]
    assert Companion("quick", ["mine"], output=str(tmp_path)).load_corpora()[0].checksum == load_corpus("mine").checksum
    shown = CliRunner().invoke(app, ["corpus", "mine", "--fold", "3", "--json"])
    assert json.loads(shown.stdout)["checksum"] == load_corpus("mine", fold=3).checksum
    with pytest.raises(InputError, match="named 'mine' exists already"):
        register_corpus("mine", CORPORA["synthetic"])


def test_data_dir_itself_or_its_subfolder_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("IRTUNING_DATA", raising=False)
    folder = tmp_path / "iterater"
    folder.mkdir()
    write_jsonl(folder / "train.json", own_rows())
    assert sources.find("iterater", folder) == sources.find("iterater", tmp_path) == folder
    assert sources.find("iterater") is None
    monkeypatch.setenv("IRTUNING_DATA", str(tmp_path))
    assert sources.locate("iterater") == folder
    with pytest.raises(InputError, match="data folder .* lacks .*edits/train.json.*'arxivedits'. Get it from"):
        sources.locate("arxivedits", tmp_path)
    with pytest.raises(InputError, match="data folder .* is not a folder"):
        sources.locate("iterater", tmp_path / "nowhere")
    monkeypatch.setenv("IRTUNING_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="data folder .* is not a folder"):
        sources.locate("iterater")


@pytest.mark.parametrize("archive", [True, False])
def test_files_or_an_archive_are_downloaded_once_and_checked(tmp_path, monkeypatch, archive):
    monkeypatch.delenv("IRTUNING_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path / "cache" / name)
    served, packed_as = tmp_path / "served", "abc.zip" if archive else ""
    (served / "data").mkdir(parents=True)
    (served / "data" / "a.json").write_text("{}")
    with zipfile.ZipFile(served / "abc.zip", "w") as packed:
        [packed.writestr(name, "{}") for name in ("Repo-1/data/a.json", "Repo-1/code/run.py")]
    handler = partial(SimpleHTTPRequestHandler, directory=served)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:  # in place of GitHub
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url, digest = f"http://127.0.0.1:{web.server_port}/", hashlib.sha256(b"data/a.json\n2\n{}").hexdigest()
        facts = {"home": "home", "patterns": ("data/a.json",), "checksum": digest, "url": url + packed_as}
        source = CorpusSource(load=load_mine, labels=("a", "b"), **facts)
        monkeypatch.setitem(CORPORA, "arxivedits", source)
        found = sources.locate("arxivedits")
        assert (found / "data" / "a.json").read_text() == "{}" and (found.name == "Repo-1") == archive
        (served / (packed_as or "data/a.json")).unlink()
        assert sources.locate("arxivedits") == found
        (found / "data" / "a.json").write_text("[]")
        with pytest.raises(InputError, match="download failed .*does not hold the published release.*IRTUNING_DATA"):
            sources.locate("arxivedits")
        monkeypatch.setitem(CORPORA, "arxivedits", replace(source, url=f"{url}absent.zip"))
        with pytest.raises(InputError, match="404.*absent.zip.*Get it from home .*--data.*IRTUNING_DATA"):
            sources.locate("arxivedits")
        web.shutdown()


def test_import_is_light():
    heavy = ["pandas", "sklearn", "openpyxl", "numpy"]
    code = f"import sys, irtuning.corpora.load; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


ROWS = [dict(before=f"Old {i}.", after=f"New {i}, “é”.", label="abc"[i % 3], who=f"w{i // 2}") for i in range(40)]
def damage(content: bytes, rng: random.Random) -> bytes:
    """Cut, change, insert, move or replace a part of the bytes."""
    a, b = sorted(rng.randrange(len(content)) for _ in range(2))
    junk = rng.choice([b"\x00", b'"', b"\xff", b"\r", b"\xef\xbb\xbf", b"}{", b"<", b"[" * 2000, rng.randbytes(9)])
    return rng.choice([content[:a], content[:a] + junk + content[a:], content[:a] + content[b:], content * 2, junk,
                       content.decode("latin-1").encode("utf-16")])  # fmt: skip


@pytest.mark.parametrize("name", ["own.csv", "own.jsonl", "own.xlsx"])
def test_a_damaged_file_loads_or_is_refused_by_its_name(tmp_path, name):
    path = write_table(tmp_path / name, ROWS)
    content, refused = path.read_bytes(), 0
    for number in range(25):
        path.write_bytes(damage(content, random.Random(f"{name} {number}")))
        try:
            load_corpus(path)
        except InputError as error:
            assert path.stem in str(error) or "groups in" in str(error)
            assert len(str(error)) < 5_000
            refused += 1
    assert 5 <= refused

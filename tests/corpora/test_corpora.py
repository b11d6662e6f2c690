"""The corpus loaders: the published corpora row by row, the paper's two in their published shape, your own tables."""

import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import openpyxl
import pytest

from irtuning.corpora import argrewrite, sources
from irtuning.corpora.argrewrite import COLUMNS, FINE_LABELS, read_workbook
from irtuning.corpora.arxivedits import read_edits
from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.explore import corpora_table
from irtuning.corpora.folds import assign_folds, cut
from irtuning.corpora.load import corpus_names, has_fixed_splits, load_corpus
from irtuning.corpora.public import ARGREVISION_LABELS, ITERATER_LABELS
from irtuning.corpora.reading import read_rows
from irtuning.corpora.sources import CORPORA, CorpusSource, register_corpus
from irtuning.errors import InputError

# Runs of these corpora are recorded, so they must never change: the first digits of the checksum of each fold.
CHECKSUMS = {
    ("argrewrite", "fine"): ["e25b02e568c0", "3920dc925117", "c68c0b5b1bd9", "c12e1a2aaba5", "f1db14a07d9f"],
    ("argrewrite", "coarse"): ["44d5979be711", "88d61786c241", "12247eef6665", "c5e563d5aa88", "447230d475cb"],
    ("arxivedits", "fine"): ["03e675ecb5a0"],
    ("arxivedits", "coarse"): ["15b2e2532d5a"],
}


# ---- helpers: small files in the shape of the real ones


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_book(path: Path, **sheets: list[list]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, grid in sheets.items():
        sheet = book.create_sheet(title.replace("_", " "))
        for row in grid:
            sheet.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    book.save(path)
    return path


def own_rows(count: int = 24) -> list[dict]:
    return [dict(before=f"old {i}", after=f"new {i}", label="ab"[i % 2], who=f"w{i % 12}") for i in range(count)]


def csv_text(rows: list[dict]) -> str:
    return "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"


def iterater_rows(labels=ITERATER_LABELS * 2) -> list[dict]:
    return [
        {"before_sent": f"a {i}", "after_sent": f"b {i}", "labels": label, "doc_id": f"d{i}", "revision_depth": 1}
        for i, label in enumerate(labels)
    ]


def iterater_folder(folder: Path, validation: str = "dev") -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("train", validation, "test"):
        write_jsonl(folder / f"{name}.json", [*iterater_rows(), *iterater_rows(["others"])])
    return folder


def argrewrite_book(path: Path, old: list[list] | None = None, new: list[list] | None = None) -> Path:
    old = old or [[1, "Same.", "1", 1], [2, "An old  claim.", "2", 0, "Claims/Ideas", "Modify", "7"]]
    new = new or [
        [1, "Same.", "1", 1],
        [2, "A new claim.", "2", 0, "Claims/Ideas", "Modify", "7"],
        [3, "Proof.", "ADD", None, "Evidence,Precision", "Add,Add", "8,9"],
    ]
    return write_book(path, Old_Draft=[COLUMNS, *old], New_Draft=[COLUMNS, *new])


BOOK = Path("A") / "12" / "Annotation_2018argrewrite_1_NEW.txt.xlsx"


# ---- the published corpora, against the reference made independently of this package


def reference(real_data: Path, name: str) -> list[dict]:
    path = real_data.parent / "jsonl" / f"{name}.jsonl"
    if not path.is_file():
        pytest.skip("IRTUNING_DATA/../jsonl, the joined reference, is absent")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def compared(revision, group: str) -> dict:
    """The fields of a revision under the names of the reference."""
    spans = {name: span and list(span) for name, span in
             (("before_span", revision.before_span), ("after_span", revision.after_span))}  # fmt: skip
    texts = {"id": revision.id, "before": revision.before, "after": revision.after, group: revision.group}
    return texts | {"labels": revision.extra["labels"]} | (spans if group == "arxiv_id" else {})


def agree(revisions: list, expected: list[dict], group: str) -> bool:
    rows = [compared(revision, group) for revision in revisions]
    return rows == [{name: row[name] for name in rows[0]} for row in expected]


@pytest.fixture(scope="module")
def argrewrite_rows(real_data) -> list:
    folder = sources.locate("argrewrite", real_data)
    paths = sorted(folder.glob(CORPORA["argrewrite"].patterns[0]), key=Path.as_posix)
    return [r for path in paths for r in read_workbook(path)]


def test_argrewrite_is_the_reference_row_by_row(real_data, argrewrite_rows):
    expected = reference(real_data, "argrewrite_v2")
    assert agree(argrewrite_rows, expected, "essay_id") and len(argrewrite_rows) == 3320
    assert [r.operation for r in argrewrite_rows] == [row["operation"] for row in expected]
    assert all(r.intention == r.extra["labels"] for r in argrewrite_rows)


@pytest.mark.parametrize(("split", "count"), [("train", 1254), ("dev", 438), ("test", 430)])
def test_arxivedits_is_the_reference_row_by_row(real_data, split, count):
    rows = list(read_edits(sources.locate("arxivedits", real_data) / "data" / "edits" / f"{split}.json"))
    expected = reference(real_data, f"arxivedits_{split}")
    assert agree(rows, expected, "arxiv_id") and len(rows) == count
    named = {"add": "Insertion", "delete": "Deletion", "modify": "Substitute"}
    assert [named[r.operation] for r in rows] == [row["edit_type"] for row in expected]


def test_published_corpora_have_their_recorded_checksums(real_data, argrewrite_rows, monkeypatch):
    """The workbooks are read once for the ten corpora that are made from them."""
    for (name, labels), checksums in CHECKSUMS.items():
        for fold, checksum in enumerate(checksums):
            workbooks = iter([argrewrite_rows])
            monkeypatch.setattr(argrewrite, "read_workbook", lambda path: next(workbooks, []))
            corpus = load_corpus(name, real_data, fold, labels=labels)
            assert corpus.checksum.startswith(checksum) and corpus.fold == fold
    assert corpus.counts()["train"] == {"Content": 378, "Language": 364, "Improve-grammar-Typo": 310, "Format": 202}
    assert corpus.licence == "none stated" and len({r.extra["labels"] for r in corpus.train}) == 7


def test_arxivedits_marks_the_edit_at_hand(real_data):
    corpus = load_corpus("arxivedits", real_data)
    revision = next(r for r in corpus.validation if r.id == "arxivedits_dev_1_0")
    assert "<edit> Corollary 1 </edit>" in revision.texts()[1]
    assert "<edit>" not in revision.before + revision.after


def test_argrewrite_folds_are_disjoint_and_cover_everything(argrewrite_rows):
    tested = []
    for fold in range(5):
        parts = cut(argrewrite_rows, fold)
        writers = [{r.group for r in part} for part in parts]
        assert sum(map(len, writers)) == len(set.union(*writers)) == 86
        assert sum(map(len, parts)) == 3320
        assert all({r.intention for r in part} == set(FINE_LABELS) for part in parts)
        tested += [r.id for r in parts[2]]
    assert len(tested) == len(set(tested)) == 3320


# ---- folds


def test_folds_keep_groups_whole_balance_labels_and_ignore_row_order():
    groups = [f"w{i % 12}" for i in range(48)]
    labels = ["abc"[i % 12 % 3] for i in range(48)]
    folds = assign_folds(groups, labels)
    assert folds == [0, 3, 3, 2, 4, 0, 3, 1, 1, 1, 2, 4] * 4
    assert assign_folds(groups[::-1], labels[::-1])[::-1] == folds


def test_folds_by_row_balance_every_label(tmp_path):
    path = write_jsonl(tmp_path / "own.jsonl", own_rows(100))
    for fold in range(5):
        corpus = load_corpus(path, fold=fold)
        assert corpus.counts()["test"] == {"a": 10, "b": 10}
        assert corpus.counts()["validation"] == {"a": 5, "b": 5}


def test_folds_need_enough_groups():
    with pytest.raises(InputError, match="3 groups in 30 rows .* cannot be split in 5 folds"):
        assign_folds(["x", "y", "z"] * 10, ["a"] * 30)
    with pytest.raises(InputError, match="0 groups"):
        cut([])


# ---- ArgRewrite's rules on a workbook made here


def test_workbook_joins_both_sheets_by_revision_index(tmp_path):
    rows = read_workbook(argrewrite_book(tmp_path / BOOK))
    assert [(r.id, r.before, r.after, r.intention) for r in rows] == [
        ("2018argrewrite_1_12_7", "An old claim.", "A new claim.", "Claims/Ideas"),
        ("2018argrewrite_1_12_8", "", "Proof.", "Evidence"),
        ("2018argrewrite_1_12_9", "", "Proof.", "Precision"),
    ]


def test_workbook_adds_changed_sentences_by_alignment_alone(tmp_path):
    mark = ["Claims/Ideas", "Modify", "7"]
    new = [[1, "A new", "2", 0, *mark], [2, "claim, cut.", "2", 0], [3, "Unrevised.", "2", 1]]
    (row,) = read_workbook(argrewrite_book(tmp_path / BOOK, new=new))
    assert row.after == "A new claim, cut."


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2, "x", "2", 0, "Claims", "Modify", "7"], "unknown purpose in .*Old Draft', row 2: 'Claims'; did you"),
        ([2, "x", "2", 0, "Evidence", "Modify", "7,8"], "as many revisions each"),
        ([2, "x", "2", 0, "Evidence", "Modify", "7"], "revision 7 has two purposes"),
        ([None, "x", "2", 0], "row 2: 'Sentence Index' must be a whole number, got ''"),
        ([1.5, "x", "2", 0], "'Sentence Index' must be a whole number, got '1.5'"),
    ],
)
def test_workbook_errors_name_the_row(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_workbook(argrewrite_book(tmp_path / BOOK, old=[row]))


def test_workbook_with_missing_sheet_or_columns_or_that_is_none(tmp_path):
    with pytest.raises(InputError, match="no sheet 'New Draft'; found .'Old Draft'"):
        read_workbook(write_book(tmp_path / BOOK, Old_Draft=[COLUMNS, [1, "x"]]))
    with pytest.raises(InputError, match="no column 'Identical[?]'.*expected .*found"):
        read_workbook(write_book(tmp_path / BOOK, Old_Draft=[COLUMNS[:3], [1, "x", "1"]], New_Draft=[]))
    (tmp_path / BOOK).write_bytes(b"not a zip file")
    with pytest.raises(InputError, match="is not an .xlsx workbook"):
        read_workbook(tmp_path / BOOK)
    with pytest.raises(InputError, match="no writer"):
        read_workbook(argrewrite_book(tmp_path / "A" / "12" / "other.xlsx"))


# ---- arXivEdits on a file made here

PAIR = {"sentence-1": "a b c", "sentence-2": "a c", "arxiv-id": "1"}
EDIT = {"intention": "Format", "sentence-1-token-indices": [1, 2], "sentence-2-token-indices": None}


def pairs(pair: dict = PAIR, **edit) -> dict:
    return {"0": pair | {"edits-combination-0": {"0": EDIT | edit}}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold an object of sentence pairs, got list"),
        ({"0": 5}, "sentence pair '0' must be an object, got int"),
        ({"0": PAIR}, "no 'edits-combination-0'; found"),
        (pairs(intention="Formt"), "unknown intention in .*edit '0': 'Formt'; did you mean 'Format'"),
        (pairs(intention=["Format"]), "'intention' must be str"),
        (pairs(**{"sentence-1-token-indices": [1, 9]}), r"within 3 tokens, got \[1, 9\]"),
        (pairs(**{"sentence-1-token-indices": None}), "a span on neither side"),
        (pairs(PAIR | {"sentence-1": None}), "'sentence-1' must be str"),
    ],
)
def test_arxivedits_errors_name_the_edit(tmp_path, content, message):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        list(read_edits(path))


# ---- ITERATER-human and ArgRevision


@pytest.mark.parametrize("validation", ["dev", "validation"])
def test_iterater_from_disk(tmp_path, monkeypatch, validation):
    iterater_folder(tmp_path / "iterater", validation)
    monkeypatch.setenv("IRTUNING_DATA", str(tmp_path))
    corpus = load_corpus("iterater")
    assert corpus.labels == ("clarity", "fluency", "coherence", "style", "meaning-changed")
    assert [len(corpus.split(split)) for split in SPLITS] == [10, 10, 10]
    revision = corpus.validation[3]
    assert (revision.before, revision.after, revision.intention, revision.group) == ("a 3", "b 3", "style", "d3")
    assert dict(revision.extra) == {"revision_depth": 1}


def test_iterater_from_the_hub(monkeypatch):
    import datasets

    monkeypatch.delenv("IRTUNING_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: iterater_rows() + iterater_rows(["others"]))
    assert len(load_corpus("iterater").test) == 10

    def unreachable(name, split):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match="wanyu/IteraTeR_human_sent .no network.*IRTUNING_DATA"):
        load_corpus("iterater")


def test_iterater_refuses_an_unknown_label(tmp_path):
    write_jsonl(iterater_folder(tmp_path) / "test.json", iterater_rows(["fluency", "fluent"]))
    with pytest.raises(InputError, match="unknown label in .*test.json, line 2: 'fluent'; did you mean 'fluency'"):
        load_corpus("iterater", tmp_path)


@pytest.mark.parametrize("direct", [True, False])
def test_argrevision_from_a_spreadsheet(tmp_path, direct):
    labels = [*ARGREVISION_LABELS * 20, "claim", "claim"]
    body = [[None if i == 0 else f"o {i}", f"n {i}", label] for i, label in enumerate(labels)]
    header = ["old_sentences", "new_sentences", "purpose_labels"]
    path = write_book(tmp_path / "argrevision.xlsx", Sheet1=[header, *body])
    corpus = load_corpus("argrevision", path if direct else tmp_path)
    assert corpus.labels == ("relevant", "irrelevant", "already exists", "LCE", "not LCE", "commentary")
    assert [len(corpus.split(split)) for split in SPLITS] == [96, 12, 12]
    assert [r.id for r in corpus.test[:3]] == ["argrevision:3", "argrevision:65", "argrevision:39"]
    first = next(r for split in SPLITS for r in corpus.split(split) if r.id == "argrevision:2")
    assert (first.before, first.after, first.operation) == ("", "n 0", "add")


def test_argrevision_is_not_public(monkeypatch, tmp_path):
    monkeypatch.delenv("IRTUNING_DATA", raising=False)
    with pytest.raises(InputError, match="not public.*save their spreadsheet as argrevision.xlsx.*IRTUNING_DATA"):
        load_corpus("argrevision")
    path = write_book(tmp_path / "argrevision.xlsx", Sheet1=[["old", "new"], ["a", "b"]])
    with pytest.raises(InputError, match="no column 'old_sentences', .*found .'old', 'new'"):
        load_corpus("argrevision", path)


# ---- your own tables


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "xlsx"])
def test_own_file_in_every_format(tmp_path, ending):
    rows, path = own_rows(), tmp_path / f"own.{ending}"
    if ending == "xlsx":
        write_book(path, Sheet=[list(rows[0]), *(list(row.values()) for row in rows)])
    elif ending.startswith("json"):
        write_jsonl(path, rows)
    else:
        text = csv_text(rows)
        path.write_text("\ufeff" + (text.replace(",", "\t") if ending == "tsv" else text), encoding="utf-8")
    corpus = load_corpus(path, group="who", fold=3)
    assert (corpus.name, corpus.labels, corpus.fold) == ("own", ("a", "b"), 3)
    groups = [{r.group for r in corpus.split(split)} for split in SPLITS]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 12
    assert sorted(r.before for split in SPLITS for r in corpus.split(split)) == sorted(row["before"] for row in rows)


def test_own_columns_by_name_and_quoted_line_breaks(tmp_path):
    body = "".join(f'"old, {i}\nline two",new {i},{"xy"[i % 2]}\n' for i in range(20))
    path = tmp_path / "own.csv"
    path.write_text("v1,v2,why\n" + body, encoding="utf-8")
    corpus = load_corpus(str(path), before="v1", after="v2", label="why")
    assert corpus.labels == ("x", "y")
    assert all("\nline two" in r.before for r in corpus.train)


def test_own_folder_keeps_its_splits(tmp_path):
    for name, count in (("train", 8), ("dev", 4), ("test", 2)):
        write_jsonl(tmp_path / f"{name}.jsonl", own_rows(count))
    assert [len(load_corpus(tmp_path).split(split)) for split in SPLITS] == [8, 4, 2]
    with pytest.raises(InputError, match="fixed splits, so fold 2 does not exist"):
        load_corpus(tmp_path, fold=2)
    write_jsonl(tmp_path / "validation.jsonl", own_rows(4))
    with pytest.raises(InputError, match="holds .'validation.jsonl', 'dev.jsonl'. for split 'validation'; keep one"):
        load_corpus(tmp_path)
    (tmp_path / "test.jsonl").unlink()
    (tmp_path / "dev.jsonl").unlink()
    with pytest.raises(InputError, match="no file for split 'test'; name it test with one of .csv"):
        load_corpus(tmp_path)


GOOD = csv_text(own_rows())
BAD_FILES = {
    "empty": ("a.csv", b"", "holds no rows"),
    "header only": ("a.csv", b"before,after,label\n", "holds no rows"),
    "missing column": ("a.csv", b"before,text,label\na,b,c\n", "no column 'after'; expected .*found .'before', "),
    "missing key": ("a.jsonl", b'{"before": "a", "after": "b"}\n', "a.jsonl, line 1: no column 'label'"),
    "blank label": ("a.csv", b"before,after,label\na,b,x\na,b, \n", "a.csv, line 3: 'label' is blank; fill it in"),
    "empty sides": ("a.csv", b"before,after,label\n , ,x\n", "a.csv, line 2: both sides are empty"),
    "not UTF-8": ("a.csv", b"before,after,label\nna\xefve,b,x\n", "is not UTF-8 .byte 21"),
    "malformed JSON": ("a.jsonl", b'{"before": "a"}\n{"before": \n', "a.jsonl, line 2 is not JSON"),
    "no object": ("a.jsonl", b"[1, 2]\n", "a.jsonl, line 1 is not a JSON object"),
    "list": ("a.jsonl", b'{"before": ["a"], "after": "", "label": "x"}', "line 1: 'before' must be text, got list"),
    "long row": ("a.csv", b"before,after,label\na,b,x,y\n", "line 2 has 4 cells for 3 columns"),
    "open quote": ("a.csv", b'before,after,label\n"a,b,x\n', "line 2 is malformed"),
    "same name twice": ("a.csv", b"before,after,before\na,b,c\n", "occur twice"),
    "no workbook": ("a.xlsx", b"PK\x03\x04 nothing", "is not an .xlsx workbook"),
    "other ending": ("a.docx", b"", "cannot read files that end in '.docx'; give one of .csv"),
    "one example": ("a.csv", (GOOD + "p,q,c,w\n").encode(), "label 'c' has one example; drop that row or merge"),
    "one label": ("a.csv", GOOD.replace(",b,", ",a,").encode(), "it has 1 label"),
    "too few rows": ("a.csv", "\n".join(GOOD.splitlines()[:7]).encode(), "cannot be split in 5 folds"),
}


def test_null_and_nan_are_an_empty_side(tmp_path):
    missing = [{"before": None, "after": "b", "label": "a"}, {"before": float("nan"), "after": "b", "label": "b"}]
    rows = load_corpus(write_jsonl(tmp_path / "own.jsonl", missing * 10)).train
    assert {(r.before, r.operation) for r in rows} == {("", "add")}


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_say_what_is_wrong_and_where(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_corpus(tmp_path / name)


def test_blank_group_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "own.jsonl", [*own_rows(), {"before": "a", "after": "b", "label": "a", "who": None}])
    with pytest.raises(InputError, match="line 25: 'who' is blank"):
        load_corpus(path, group="who")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("iteratr", {}, "unknown corpus 'iteratr'; did you mean 'iterater'"),
        ("", {}, "unknown corpus ''"),
        ("missing.csv", {}, "no file or folder 'missing.csv'"),
        ("no/such/folder", {}, "no file or folder"),
        ("iterater", {"labels": "coarse"}, "'iterater' has one label set"),
        ("argrewrite", {"labels": "rough"}, "unknown label set 'rough'"),
        ("argrewrite", {"fold": 5}, "fold must be 0 to 4, got 5"),
        ("iterater", {"fold": 1}, "fixed splits"),
        ("synthetic", {"fold": 1}, "fixed splits"),
        ("argrewrite", {"label": "why"}, "has its own columns"),
    ],
)
def test_impossible_requests(name, options, message):
    with pytest.raises(InputError, match=message):
        load_corpus(name, **options)


def test_every_name_is_known():
    assert corpus_names() == ("iterater", "argrevision", "argrewrite", "arxivedits", "synthetic")
    assert [has_fixed_splits(name) for name in corpus_names()] == [True, True, False, True, True]


def test_a_corpus_shows_its_sizes_and_computes_its_checksum_once():
    corpus = load_corpus("synthetic")
    assert repr(corpus) == "Corpus('synthetic', 5 labels, train 1,600, validation 200, test 200, fold 0)"
    assert corpus.checksum is corpus.checksum
    assert "SYNTHETIC" in corpus._repr_html_() and "<td><b>1,600</b></td>" in corpus._repr_html_()


# ---- a corpus of one's own under a name


def load_mine(folder: Path | None, fold: int, labels: str | None) -> Corpus:
    rows = [Revision(str(i), f"old {i}", f"new {i}", "ab"[i % 2], f"w{i}") for i in range(40)]
    return Corpus("any", ("a", "b"), *cut(rows, fold), fold=fold)


@pytest.fixture
def mine():
    source = CorpusSource(load=load_mine, labels=("a", "b"), home="here", licence="CC0", split_by_us=True)
    register_corpus("mine", source)
    yield
    del CORPORA["mine"]


def test_a_registered_corpus_works_wherever_a_name_does(mine, tmp_path):
    from typer.testing import CliRunner

    from irtuning.cli.app import app
    from irtuning.companion.experiments import Companion

    corpus = load_corpus("mine", fold=2)
    assert (corpus.name, corpus.fold, corpus.licence) == ("mine", 2, "CC0") and "mine" in corpus_names()
    table = corpora_table()
    assert table.loc["mine", ["labels", "licence", "home"]].tolist() == ["a, b", "CC0", "here"]
    assert Companion("quick", ["mine"], output=str(tmp_path)).corpora()[0].checksum == load_corpus("mine").checksum
    import irtuning.cli.runs  # noqa: F401 (adds its commands)

    shown = CliRunner().invoke(app, ["corpus", "mine", "--fold", "3", "--json"])
    assert json.loads(shown.stdout)["checksum"] == load_corpus("mine", fold=3).checksum
    with pytest.raises(InputError, match="named 'mine' exists already"):
        register_corpus("mine", CORPORA["synthetic"])


# ---- where corpora come from


def test_data_dir_itself_or_its_subfolder_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("IRTUNING_DATA", raising=False)
    folder = iterater_folder(tmp_path / "iterater")
    assert sources.find("iterater", folder) == sources.find("iterater", tmp_path) == folder
    assert sources.find("iterater") is None
    monkeypatch.setenv("IRTUNING_DATA", str(tmp_path))
    assert sources.locate("iterater") == folder
    with pytest.raises(InputError, match="data folder .* does not hold 'arxivedits'.*edits/train.json.*Get it from"):
        sources.locate("arxivedits", tmp_path)
    with pytest.raises(InputError, match="data folder .* is not a folder"):
        sources.locate("iterater", tmp_path / "nowhere")
    monkeypatch.setenv("IRTUNING_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="IRTUNING_DATA .* is not a folder"):
        sources.locate("iterater")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server in place of GitHub: the folder it serves and its address."""
    import pooch

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    monkeypatch.delenv("IRTUNING_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / "cache" / name)
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()


def serve(monkeypatch, **changes) -> None:
    """Register arXivEdits with another origin."""
    source = CorpusSource(load=load_mine, labels=("a", "b"), home="home", patterns=("data/*.json",), **changes)
    monkeypatch.setitem(CORPORA, "arxivedits", source)


def test_single_files_are_downloaded_once_and_checked(server, monkeypatch):
    folder, url = server
    (folder / "data").mkdir()
    (folder / "data" / "a.json").write_text("{}")
    serve(monkeypatch, url=url, files={"data/a.json": hashlib.sha256(b"{}").hexdigest()})
    found = sources.locate("arxivedits")
    assert (found / "data" / "a.json").read_text() == "{}"
    (folder / "data" / "a.json").write_text("[]")
    assert sources.locate("arxivedits") == found
    (found / "data" / "a.json").write_text("damaged")
    with pytest.raises(InputError, match="could not be fetched from http.*hash.*Get it from home.*IRTUNING_DATA"):
        sources.locate("arxivedits")


def test_an_archive_is_unpacked_once_and_checked(server, monkeypatch):
    folder, url = server
    with zipfile.ZipFile(folder / "abc.zip", "w") as packed:
        for name in ("Repo-1/data/a.json", "Repo-1/code/run.py"):
            packed.writestr(name, "{}")
    digest = hashlib.sha256(b"data/a.json\n2\n{}").hexdigest()
    serve(monkeypatch, url=f"{url}abc.zip", checksum=digest)
    found = sources.locate("arxivedits")
    assert found.name == "Repo-1" and (found / "data" / "a.json").read_text() == "{}"
    (folder / "abc.zip").unlink()
    assert sources.locate("arxivedits") == found
    (found / "data" / "a.json").write_text("[]")
    with pytest.raises(InputError, match="does not hold the published release; delete"):
        sources.locate("arxivedits")


def test_a_failed_download_says_how_to_get_the_corpus(server, monkeypatch):
    serve(monkeypatch, url=f"{server[1]}absent.zip", checksum="0")
    with pytest.raises(InputError, match="absent.zip .*404.*Get it from home .*--data.*IRTUNING_DATA"):
        sources.locate("arxivedits")


def test_published_files_have_the_pinned_digests(real_data):
    source = CORPORA["argrewrite"]
    assert sources.digest(source, sources.locate("argrewrite", real_data)) == source.checksum
    folder = sources.locate("arxivedits", real_data)
    for name, digest in CORPORA["arxivedits"].files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_import_is_light():
    heavy = ["pandas", "sklearn", "openpyxl", "numpy"]
    code = f"import sys, irtuning.corpora.load; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_rows_know_their_line(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text('a,b\n"x\ny",1\n\n2\n', encoding="utf-8")
    rows = read_rows(path)
    assert [(row.line, dict(row.cells)) for row in rows] == [(3, {"a": "x\ny", "b": "1"}), (5, {"a": "2", "b": None})]

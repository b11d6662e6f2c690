"""Files of a user's own as they come: quotes, separators, encodings, names of columns and files, repeated pairs."""

import json
import logging
import random
import re

import pandas
import pytest

from irtuning.corpora.base import SPLITS
from irtuning.corpora.folds import leaks
from irtuning.corpora.load import load_corpus
from irtuning.corpora.reading import read_rows
from irtuning.errors import InputError

HEADER = "before\tafter\tlabel\n"
PAIRS = [("He go.", "He goes.", "style"), ("naïve café", "naïve “café”", "clarity")] * 8
READ = {  # name: (file, content, cells of the rows, what the log says)
    "quoted line break": ("a.tsv", HEADER + '"a\tb\nc"\t""\tstyle\n', [["a\tb\nc", "", "style"]], ""),
    "prose with commas": ("a.csv", 'before,after,label\n"One, two,\nthree",x,style\n', [["One, two,\nthree", "x", "style"]], ""),
    "semicolons": ("a.csv", "before;after;label\na, b;c;style\n", [["a, b", "c", "style"]], "';' between"),
    "tabs in a .csv": ("a.csv", HEADER + "a\tb\tstyle\n", [["a", "b", "style"]], r"'\\t' between"),
    "UTF-16": ("a.csv", (HEADER + "é\t“b”\tstyle\n").encode("utf-16"), [["é", "“b”", "style"]], "read as utf_16"),
    "Latin-1": ("a.csv", "before,after,label\nnaïve,Je l'ai été à Noël,style\n".encode("latin-1"),
                [["naïve", "Je l'ai été à Noël", "style"]], "read as cp1252"),
    "Japanese": ("a.csv", ("before,after,label\n" + "彼は家に帰った。,彼は急いで帰った。,x\n" * 2).encode("cp932"),
                 [["彼は家に帰った。", "彼は急いで帰った。", "x"]] * 2, "read as cp932"),
    "English quotes": ("a.csv", "before,after,label\nFrançois said,Müller’s café,x\n".encode("cp1252"),
                       [["François said", "Müller’s café", "x"]], "read as cp1252"),
    "few letters": ("a.tsv", (HEADER + "Old n°1\tNá naïve 1, x\tstyle\n" * 60).encode("cp1252"),
                    [["Old n°1", "Ná naïve 1, x", "style"]] * 60, "read as cp1252"),
    "Cyrillic": ("a.csv", ("before;after;label\n" + "Он пошёл домой.;Он идёт;x\n" * 9).encode("cp1251"),
                 [["Он пошёл домой.", "Он идёт", "x"]] * 9, "read as cp1251"),
    "an array of objects": ("a.json", '[\n {"before": "a",\n "after": "b", "label": "x"}]', [["a", "b", "x"]], ""),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "cells", "said"), READ.values(), ids=READ)
def test_what_a_file_holds_is_read_in_full(tmp_path, caplog, name, content, cells, said):
    caplog.set_level(logging.INFO)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert [list(row.cells.values()) for row in read_rows(tmp_path / name)] == cells
    assert re.search(said, caplog.text) and bool(said) == bool(caplog.text)


REFUSED = {
    "joined rows": ("a.csv", b'before,after,label\n"I went.,I walked.,x\nI slept.",b,y\n', "line 2: its quotation mark"),
    "quote that is not closed": ("a.csv", b'before,after,label\na,b,x\n"a,b,x\nc,d,y\n', "line 3: .*double a quotation mark"),
    "unbalanced quotes": ("a.tsv", (HEADER + '"I went.\tI walked.\tx\nI slept."\tI slept well.\ty\n').encode(), "line 2: its quotation mark"),
    "quotes inside": ("a.tsv", (HEADER + '"Hi," he said.\tHi.\tstyle\n').encode(), "line 2: .*double a quotation mark"),
    "row that ends early": ("a.csv", b"label,before,after\nx,a,b\ny,a\n", "line 3: unknown column 'after'"),
    "a deleted sentence whose quotation mark opens": ("a.tsv", (HEADER + '"I went.\t\tx\nI slept."\tI did.\ty\n').encode(), "line 2: its quotation"),
    "the same with commas": ("a.csv", b'before,after,label\n"I went.,,x\nI slept.",b,y\n', "line 2: its quotation mark"),
    "a few bytes that are not UTF-8": ("a.csv", "before,after,label\né,à,x\né,b,x\na".encode() + b"\xe9,b,x\n", "is not UTF-8"),
    "UTF-16 without a mark": ("a.csv", "before,after,label\na,b,x".encode("utf-16-le"), "zero bytes.*save it as UTF-8"),
    "two columns of one name": ("a.csv", b"before,after,Label,label_\na,b,x,y\n", "unknown column 'label'"),
    "no encoding fits": ("a.csv", random.Random(0).randbytes(500), "is not UTF-8, and no other encoding fits"),
    "objects on several lines": ("a.jsonl", b'{\n"before": "a"}\n', "row 1 is no JSON object .*; write each object on a line"),
    "columns as objects": ("a.json", b'{"before": {"0": "a"}, "after": {"0": "b"}, "label": {"0": "x"}}', "must be text, got dict"),
    "array of something else": ("a.json", b'[{"before": "a"}, 3]', "row 2 is no JSON object .*'int' object is not a mapping"),
    "damaged array": ("a.json", b'[{"before": "a"}, ', "row 1 is no JSON object .*Expecting value: line 1"),
    "not Parquet": ("a.parquet", b"PAR1", "a.parquet cannot be read .*; save it again"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_an_error_and_never_a_loss(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_corpus(tmp_path / name)


def test_parquet_and_the_first_sheet_are_read(tmp_path, caplog):
    table = pandas.DataFrame(PAIRS, columns=["before", "after", "label"]).assign(after=[None, *(p[1] for p in PAIRS[1:])])
    table.to_parquet(tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert len(rows) == 16 and rows[0].text("after") == "" and (rows[1].line, rows[1].text("before")) == (2, "naïve café")
    with pandas.ExcelWriter(tmp_path / "a.xlsx") as book:
        table.to_excel(book, sheet_name="data", index=False)
        pandas.DataFrame([["x", "x"]]).to_excel(book, sheet_name="notes", index=False, header=False)
    assert len(read_rows(tmp_path / "a.xlsx")) == 16


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def own_rows(count=40):
    return [dict(before=f"old {i}", after=f"new {i}", label="ab"[i % 2], who=f"w{i % 10}") for i in range(count)]


def test_names_of_columns_may_differ_in_case_and_spaces_and_those_of_files_are_the_usual_ones(tmp_path):
    rows = [{"Old_Text ": r["before"], "NEW-text": r["after"], "Label": r["label"], "extra": 1} for r in own_rows()]
    corpus = load_corpus(write(tmp_path / "own.jsonl", rows), before="old text", after="New Text")
    assert corpus.labels == ("a", "b") and corpus.train[0].extra == {"extra": 1} and corpus.train[0].before
    write(tmp_path / "own.jsonl", [{"old_text": "x", "new_text": "b", "lable": "a"}])
    with pytest.raises(InputError, match="'old_txt'; did you mean 'old_text'.*give its name with --before"):
        load_corpus(tmp_path / "own.jsonl", before="old_txt", after="new_text")
    (tmp_path / "own.jsonl").unlink()
    for split, name in [("train", "Train.jsonl"), ("test", "test.JSON")]:
        write(tmp_path / name, own_rows())
    for name in ("val.json", "valid.jsonl", "validation.json", "dev.jsonl"):
        write(tmp_path / name, [dict(before="p", after="q", label="ab"[i], who="z") for i in range(2)])
        assert len(load_corpus(tmp_path).validation) == 2
        (tmp_path / name).unlink()


def test_a_faulty_row_is_named(tmp_path):
    rows = own_rows()
    rows[2]["label"], rows[5] = "", rows[5] | {"before": "", "after": " "}
    del rows[7]["after"]
    path = tmp_path / "own.jsonl"
    for message in ("line 8: unknown column 'after'", "line 3: 'label' is blank", "line 6: both sides are empty"):
        with pytest.raises(InputError, match=f"own.jsonl, {message}"):
            load_corpus(write(path, rows))
        rows[7]["after"], rows[2]["label"] = "x", "a" if "blank" in message else rows[2]["label"]


def test_equal_pairs_stay_together_and_leaks_are_told(tmp_path, caplog):
    rows = [row | {"label": "ab"[n % 2] if row["before"] == "old 1" else row["label"]}
            for n in range(4) for row in own_rows(60)]  # fmt: skip
    path = write(tmp_path / "own.jsonl", rows)
    for fold in range(5):
        corpus = load_corpus(path, fold=fold)
        parts = [{(r.before, r.after) for r in corpus.split(split)} for split in SPLITS]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    expected = {"repeated rows": 180, "pairs in several splits": 0, "pairs with two labels": 1, "groups in several splits": 0}
    assert leaks(corpus) == expected
    assert "180 repeated rows: " in caplog.text and "1 pairs with two labels: " in caplog.text
    assert "in several splits" not in caplog.text


def test_groups_and_pairs_that_given_splits_share_are_told(tmp_path, caplog):
    [write(tmp_path / f"{split}.jsonl", own_rows(count)) for split, count in (("train", 40), ("dev", 20), ("test", 10))]
    load_corpus(tmp_path, group="who")
    assert "10 groups in several splits" in caplog.text and "20 pairs in several splits" in caplog.text

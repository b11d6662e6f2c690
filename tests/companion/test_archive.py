"""Tests of the archive of many records."""

import json

import pytest

from irtuning.analysis.tables import summary_table
from irtuning.companion.archive import read_archive, write_archive
from irtuning.errors import InputError
from irtuning.training.run import train


def test_a_stored_study_comes_back_but_for_rounding(tmp_path):
    common = {"model": "tiny-random", "max_steps": 3, "batch_size": 4, "device": "cpu", "progress": False}
    runs = [train(method=method, **common).record for method in ("ir", "full")]
    floors = [{"name": "operation", "corpus": "synthetic", "fold": 0, "split": "validation", "macro_f1": 0.1}]
    write_archive(tmp_path, {"methods": (runs, floors), "sizes": (runs[:1], [])})
    found, found_floors = read_archive(tmp_path, "methods")
    assert found_floors == floors and len(read_archive(tmp_path, "sizes")[0]) == 1
    for one, other in zip(runs, found, strict=True):
        assert json.loads(json.dumps(one["run"])) == other["run"] and one["scores"] == other["scores"]
        assert [s["layers"] for s in one["train"]["steps"]] == [s["layers"] for s in other["train"]["steps"]]
        assert other["train"]["steps"][1]["loss"] == pytest.approx(one["train"]["steps"][1]["loss"], rel=1e-3)
        kept = [{name: v for name, v in r.items() if name != "probabilities"} for r in one["predictions"]["validation"]]
        assert kept == other["predictions"]["validation"]
    assert found[0]["train"]["steps"][0]["scores"] == [None] * 12 and found[1]["train"]["steps"][0]["scores"] is None
    assert summary_table(found).macro_f1.tolist() == summary_table(runs).macro_f1.tolist()
    assert read_archive(tmp_path, "adapters") == ([], []) == read_archive(tmp_path / "none", "methods")
    (tmp_path / "steps.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="are damaged"):
        read_archive(tmp_path, "methods")

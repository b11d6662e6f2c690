"""What the report of the first edition says in words holds in its records, and its notebook still makes its tables."""

import re
import sys

import nbformat
import numpy as np
import pandas
import pytest

from irtuning.analysis.tables import runs_table
from irtuning.companion.experiments import Companion
from irtuning.companion.paths import REPOSITORY

FIRST = REPOSITORY / "reports" / "study" / "first"
sys.path.append(str(FIRST))
import first_edition as study  # noqa: E402


def test_the_reports_sentences_hold_in_the_committed_records():
    """The notebook's prose names no number; what it says of them is this."""
    companion = Companion("study", ["argrewrite", "arxivedits"])
    headline, own, sizes, rates = (companion.experiment(n, of="study").records for n in ("methods", "own-budget", "sizes", "rates"))
    first = study.primary_comparisons(headline).set_index(["corpus", "against"])
    assert list(first[first.p_holm < 0.05].index) == [("arxivedits", "ist")] and (first.difference.xs("ist", level=1) > 0).all()
    means = runs_table(headline + own, "test").groupby(["corpus", "method"])[["macro_f1", "layer_share"]].mean()
    assert (means.layer_share.xs("ist", level=1) < means.layer_share.xs("ir", level=1) / 2).all()
    floors = companion.experiment("methods", of="study").floors
    linear = pandas.DataFrame(floors).query("split == 'test' and name == 'edit-aware'").groupby("corpus").macro_f1.mean()
    assert means.macro_f1["arxivedits"].max() < linear["arxivedits"]
    assert runs_table(headline, "test").groupby(["corpus", "method"]).macro_f1.mean()["argrewrite"].min() > linear["argrewrite"]
    assert study.memory_differences(headline).share.between(-0.1, 0, inclusive="neither").all()
    assert study.size_differences(sizes).iloc[-1].low < 0 < study.size_differences(sizes).iloc[-1].high
    assert len({r["run"]["config"]["max_steps"] for r in headline + sizes}) == 1
    rate = {r["run"]["config"]["method"]: r["run"]["config"]["learning_rate"] for r in headline}
    assert rate["full"] == 2 * rate["ir"] and sum(value == 0.002 for value in rate.values()) > len(rate) / 2
    beside = study.rate_differences(rates).loc["argrewrite"]
    assert len(beside.columns) == 3 and (beside.replace("≥ ", "", regex=True).astype(int).abs() < 5).all(axis=None)
    assert study.rate_differences(rates).loc[("arxivedits", "training")].str.startswith("≥").any()
    reached = study.convergence_differences(headline).query("loss == 'training' and unit == 'steps'").set_index("corpus")
    assert 0 < reached.reached["argrewrite"] < 1 and reached.reached["arxivedits"] == 0 and (reached.difference > 0).all()
    secondary = study.secondary_differences(own).set_index(["corpus", "against"])
    assert set(secondary.index.get_level_values(1)) == {"rst", "lisa", "lisa-adapters"} and (secondary.difference > 0).all()
    assert (secondary.loc["arxivedits"].low > 0).all() and (first.drop(index="ist", level=1).p_holm > 0.05).all()
    few = runs_table(own, "test").groupby("method").layer_share.mean()
    assert few[["rst", "lisa", "lisa-adapters"]].tolist() == pytest.approx([1 / 6] * 3)
    peaks = study.peak_memory(headline)
    saved = 1 - peaks / peaks.loc["full"]
    assert (saved.loc["random-counts"] / saved.loc["ir"]).between(0.9, 1.1).all() and (saved.loc["last-k"] > 3 * saved.loc["ir"]).all()
    assert (first.detectable > first.difference.abs()).mean() > 0.5
    small = study.size_differences(sizes)
    assert not small[small.against == "full"].iloc[:-1].low.gt(0).any() and {r["run"]["config"]["corpus"] for r in sizes} == {"argrewrite"}
    ours = study.non_inferiority(headline).set_index(["method", "corpus"]).non_inferior
    assert list(ours[ours].index) == [("last-k:share=0.5", "argrewrite")]
    below = study.non_inferiority(headline).set_index(["method", "corpus"])
    assert below.high["ir-upper:horizon=5", "arxivedits"] < 0 < below.low["last-k:share=0.5", "argrewrite"]
    changed = study.against_unchanged(companion.experiment("ablations", of="study").records).set_index("method")
    assert list(changed[~changed.equal_rates].index) == ["ir:variant=exact"]
    equal = study.run_differences(headline, "auprc").groupby("against").equal_rates.all()
    assert set(equal[equal].index) == {"lisa-adapters", "last-k"}
    part = [r for r in headline if r["run"]["config"]["corpus"] == "argrewrite"]
    people = [{row["group"] for r in records for row in r["predictions"]["test"]} for records in (part, study.on_untouched(part))]
    assert [len(of) for of in people] == [86, 57] and not study.primary_comparisons(study.on_untouched(part)).p_holm.lt(0.05).any()
    assert len(study.on_untouched(headline)) == len(headline)  # arXivEdits' papers were seen in no validation part
    choice = study.choice_over_time(headline).set_index("corpus")
    assert choice.changes["argrewrite"] == 0 < choice.changes["arxivedits"] and choice.frozen["argrewrite"] == 4
    scores = runs_table(headline, "test")
    assert all(scores.groupby(["corpus", "method"]).size() == 10)
    dirty = [r for r in headline if "dirty" in (r["meta"]["commit"] or "")]
    assert len(dirty) == 119 and len(headline) == 260
    ends = [[point["loss"] for point in r["train"]["validation"]] for r in headline if r["run"]["config"]["method"] == "full"]
    assert np.mean([min(losses) < losses[-1] for losses in ends]) > 0.5
    found = study.mistakes(headline)
    assert found[found.intention.isin(["General Content Development", "Warrant/Reasoning/Backing"])].every_run.min() > 0.2
    cells = nbformat.read(FIRST / "first_edition.ipynb", 4).cells
    prose = "".join(cell.source for cell in cells if cell.cell_type == "markdown")
    rows = re.findall(r"\| (argrewrite|arxivedits) \| ([^|]*) \| ([^|]*) \|", prose)
    assert len(rows) == 5 and set(rows) <= set(zip(found.corpus, found.intention, found.predicted, strict=True))


def test_the_notebook_makes_the_committed_tables_again(tmp_path):
    cells = [cell for cell in nbformat.read(FIRST / "first_edition.ipynb", 4).cells if cell.cell_type == "code"]
    assert cells[0].metadata["tags"] == ["parameters"] and cells[0].source.startswith("output = None")
    names = {"output": str(tmp_path)}
    for cell in cells[1:]:  # in this process, because a new one would take longer to start
        exec(compile(cell.source, "cell", "exec"), names)
    made, committed = ({path.name: path.read_bytes() for path in folder.glob("05_*.csv")} for folder in (tmp_path, FIRST))
    assert len(made) > 20 and made == committed
    assert {path.name for path in tmp_path.glob("*.png")} == {path.name for path in FIRST.glob("*.png")}

"""Compute how many optimizer steps a second the processes of a session made in all, from the records of their runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import pandas


def throughput(
    records: Sequence[dict], processes: int, cards: int, groups: Mapping[str, set[str]]
) -> tuple[pandas.DataFrame, float]:
    """Return a row for each corpus with steps a second of one card, and the seconds of a process's longest first run.

    A run's steps are spread evenly over its time, evaluation and test scoring included. Its record says when it ended,
    to the second. A corpus counts while no other corpus runs, none of the first runs does, and until its last run
    begins, since afterwards processes run out of work; `with_end` counts that end too. For each group of methods, a
    column has what its runs make in a second of a process, times the processes at work.
    """
    runs = pandas.DataFrame([{
        "corpus": record["run"]["config"]["corpus"], "method": record["run"]["config"]["method"],
        "end": datetime.fromisoformat(record["meta"]["date"]).timestamp(),
        "seconds": record["meta"]["seconds"]["total"], "steps": len(record["train"]["steps"])} for record in records])  # fmt: skip
    runs = runs.assign(begin=runs.end - runs.seconds).sort_values("begin", kind="stable", ignore_index=True)
    edges = np.unique(runs[["begin", "end"]])
    lengths, middles = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    active = (runs.begin.values < middles[:, None]) & (middles[:, None] < runs.end.values)
    speed, first = (runs.steps / runs.seconds).values, runs.index < processes
    groups = {name: runs.method.isin(methods).values for name, methods in groups.items()}
    rows = []
    for corpus in runs.corpus.unique():
        mine = (runs.corpus == corpus).values
        alone = active[:, mine].any(axis=1) & ~active[:, ~mine | first].any(axis=1)
        busy = alone & (middles < runs.begin[mine].max())
        seconds, all_seconds = lengths[busy].sum(), lengths[alone].sum()
        if seconds:
            spent = lengths[busy] @ active[busy]  # seconds of each run
            rates = {"all": spent @ speed / seconds, "with_end": lengths[alone] @ active[alone] @ speed / all_seconds}
            for name, group in groups.items():
                rates[name] = spent[group] @ speed[group] / spent[group].sum() * spent.sum() / seconds
            rows.append({"corpus": corpus, "seconds": seconds} | {name: rate / cards for name, rate in rates.items()})
    return pandas.DataFrame(rows), runs.seconds[first].max()

"""Tables made from records that compare methods by convergence, learning rate, size of the data and cost of a step."""

from collections.abc import Sequence

import pandas

from irtuning.analysis.tables import losses_table, mean_by_method, runs_table, scores_table, validation_table

RUN = ["corpus", "model", "fold", "seed"]  # the fields that compared runs of different methods have in common


def reaching(records: Sequence[dict], loss: str = "training", smooth: int = 10) -> pandas.DataFrame:
    """Return when each run's loss first reaches the last loss of Full PEFT on the same fold and seed.

    One row per run: its keys, `reached`, `steps` and `seconds` until then (NaN if it is never reached), and the
    totals `all_steps` and `all_seconds`. `loss` is `training`, a running mean over `smooth` steps, or `validation`.
    """
    losses, keys = losses_table(records), [*RUN, "method"]
    if loss == "training":
        losses["loss"] = losses.groupby(keys).loss.transform(lambda s: s.rolling(smooth).mean())
    else:
        losses = validation_table(records).merge(losses.drop(columns="loss"), on=[*keys, "step"])
    goals = losses[losses.method == "full"].groupby(RUN).loss.last().rename("goal")
    losses = losses.merge(goals, on=RUN).rename(columns={"step": "steps"})
    ends = losses.groupby(keys, sort=False)[["steps", "seconds"]].last().add_prefix("all_")
    table = losses[losses.loss <= losses.goal].groupby(keys)[["steps", "seconds"]].first().reindex(ends.index)
    return table.assign(reached=table.steps.notna()).join(ends).reset_index()


def steps_to_loss(records: Sequence[dict], smooth: int = 10) -> pandas.DataFrame:
    """Return each method's share of runs that reach Full PEFT's last training loss, and mean steps and seconds."""
    return reaching(records, smooth=smooth).groupby("method", sort=False)[["reached", "steps", "seconds"]].mean()


def best_rates(records: Sequence[dict]) -> pandas.DataFrame:
    """Return each method's mean validation macro F1 at each learning rate, and its `best` rate (lower of equals)."""
    table = runs_table(records).assign(rate=[record["run"]["config"]["learning_rate"] for record in records])
    scores = table.pivot_table(index="method", columns="rate", values="macro_f1", sort=False).sort_index(axis=1)
    best = scores.idxmax(axis=1).map("{:g}".format)  # a text, since rounding the table would turn the rates into 0
    return scores.assign(best=best, runs=table.groupby("method").size())


def data_curve(records: Sequence[dict], split: str = "validation") -> pandas.DataFrame:
    """Return each run's scores, method, share of the training split, and `train_examples` (mean over folds)."""
    configs = pandas.DataFrame([record["run"]["config"] for record in records])
    sizes = pandas.Series([record["run"]["split_sizes"]["train"] for record in records])
    sizes = sizes.groupby([configs.corpus, configs.train_share]).transform("mean").round().astype(int)
    return runs_table(records, split).assign(method=configs.method, share=configs.train_share, train_examples=sizes)


def class_scores(records: Sequence[dict], split: str = "validation") -> pandas.DataFrame:
    """Return the F1 of each class, mean over the runs of one corpus: one row per method, one column per class."""
    return mean_by_method(records, [scores_table(record, split).f1.to_dict() for record in records])


def step_cost(records: Sequence[dict]) -> pandas.DataFrame:
    """Return the cost of a step of each method, mean over runs: bytes computed from the recorded shapes, and time.

    `gradient_bytes` is for the layers that learn at a step, `optimizer_bytes` for all that ever learn (Adam, float32),
    both without the head. Backprop runs through `differentiated_layers`. On a CPU `peak_memory_bytes` is missing.
    """
    rows = []
    for record in records:
        run, steps, meta = record["run"], record["train"]["steps"], record["meta"]
        size = dict(zip(run["candidate_layers"], run["layer_parameters"], strict=True))
        learned = [layer for step in steps for layer in step["layers"]]
        rows.append({
            "gradient_bytes": 4 * sum(size[layer] for layer in learned) / len(steps),
            "optimizer_bytes": 8 * sum(size[layer] for layer in set(learned)),
            "differentiated_layers": sum(run["depth"] - min(step["layers"]) for step in steps) / len(steps),
            "milliseconds_per_step": 1000 * float(pandas.Series(meta["step_seconds"]).median()),
            "peak_memory_bytes": meta["peak_memory_bytes"] if meta["peak_memory_kind"].startswith("GPU") else None})
    return mean_by_method(records, rows)

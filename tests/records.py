"""Hand-made records for tests of tables, statistics and figures."""

import numpy as np

LABELS = ["a", "b", "c"]


def predicted_run(method, seed, right, fold=0, writers=12, items=20, corpus="essays"):
    """Return a run whose predictions of a writer's items are right with the probability `right` of that writer."""
    rng, rows = np.random.default_rng([seed, fold, len(method)]), []
    for writer in range(writers):
        for item in range(items):
            true, wrong = LABELS[(item + writer) % 3], LABELS[(item + writer + 1) % 3]
            predicted = true if rng.random() < right[writer % len(right)] else wrong
            name = f"{corpus}{fold}-{writer}"
            rows.append({"id": f"{name}-{item}", "group": name, "intention": true, "predicted": predicted})
    config = {"method": method, "seed": seed, "fold": fold, "corpus": corpus, "model": "m"}
    return {"run": {"config": config, "labels": LABELS}, "predictions": {"test": rows}}

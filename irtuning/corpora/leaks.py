"""What makes scores better or worse than they are: repeated pairs, pairs with two labels, groups in several splits."""

from irtuning.corpora.base import SPLITS, Corpus, Revision


def pair_of(revision: Revision) -> tuple[str, ...]:
    """Return what a model reads of a revision, without differences in white space."""
    return tuple(" ".join(text.split()) for text in revision.texts())


def leaks(corpus: Corpus) -> dict[str, int]:
    """Return how many rows repeat a pair, and how many pairs and groups are in several splits or have two labels."""
    import pandas
    rows = [(pair_of(r), split, r.intention) for split in SPLITS for r in corpus.split(split)]
    pairs = pandas.DataFrame(rows, columns=["pair", "split", "label"]).groupby("pair").nunique()
    several = {"pairs in several splits": (pairs.split > 1).sum(), "pairs with two labels": (pairs.label > 1).sum()}
    several = {"repeated rows": len(rows) - len(pairs), **several, "groups in several splits": corpus.shared_groups}
    return {name: int(count) for name, count in several.items()}


def warnings_about(corpus: Corpus) -> list[str]:
    """Return a sentence about each leak of a corpus, with what to do."""
    cures = {
        "repeated rows": "each counts as an example of its own, so drop what is no revision of its own",
        "pairs in several splits": "the scores are too high, so keep each pair in one split or give its rows one group",
        "pairs with two labels": "no model can predict both, so decide on one",
        "groups in several splits": "the scores are too high, so keep each group in one split"}
    return [f"{count:,} {name}: {cures[name]}" for name, count in leaks(corpus).items() if count]

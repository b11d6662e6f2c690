"""What makes scores better or worse than they are: repeated pairs, pairs with two labels, groups in several splits."""

from collections import defaultdict

from irtuning.corpora.base import SPLITS, Corpus, Revision


def pair_of(revision: Revision) -> tuple[str, ...]:
    """Return what a model reads of a revision, without differences in white space."""
    return tuple(" ".join(text.split()) for text in revision.texts())


def leaks(corpus: Corpus) -> dict[str, int]:
    """Return how many rows repeat a pair, and how many pairs and groups are in several splits or have two labels."""
    splits, labels, count = defaultdict(set), defaultdict(set), 0
    for split in SPLITS:
        for revision in corpus.split(split):
            pair, count = pair_of(revision), count + 1
            splits[pair].add(split)
            labels[pair].add(revision.intention)
    several = {"pairs in several splits": splits, "pairs with two labels": labels}
    counts = {name: sum(len(values) > 1 for values in of.values()) for name, of in several.items()}
    return {"repeated rows": count - len(splits)} | counts | {"groups in several splits": corpus.shared_groups}


def warnings_about(corpus: Corpus) -> list[str]:
    """Return a sentence about each leak of a corpus, with what to do."""
    cures = {
        "repeated rows": "each counts as an example of its own, so drop what is no revision of its own",
        "pairs in several splits": "the scores are too high, so keep each pair in one split or give its rows one group",
        "pairs with two labels": "no model can predict both, so decide on one",
        "groups in several splits": "the scores are too high, so keep each group in one split"}
    return [f"{count:,} {name}: {cures[name]}" for name, count in leaks(corpus).items() if count]

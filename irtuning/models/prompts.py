"""Token ids of revisions: the instruction form for large models, the plain pair for small ones."""

import itertools
from collections.abc import Callable, Sequence

from irtuning.corpora.base import Revision
from irtuning.errors import InputError, unknown

FORMS = ("pair", "instruction")


def instruction(before: str, after: str, labels: Sequence[str]) -> str:
    """Return the instruction form: the task with its classes, then both texts, each under a heading."""
    task = f"A writer revised a text. Name the intention behind the revision, one of: {', '.join(labels)}."
    return f"{task}\n\n### Original text\n{before}\n\n### Revised text\n{after}"


def encode(
    revisions: Sequence[Revision], tokenizer: Callable, labels: Sequence[str], form: str = "pair", max_length: int = 256
) -> list[list[int]]:
    """Return the token ids of each revision by a Hugging Face tokenizer, at most `max_length` of them.

    If a prompt is too long, the ends of its two texts are cut. The revised text keeps half of the room or more.
    InputError is raised where the form is unknown, or leaves no room for the texts.
    """
    if form not in FORMS:
        raise unknown("input form", form, FORMS)
    room = max_length - len(_prompts(tokenizer, [("", "")], labels, form)[0])
    if room < 8:
        raise InputError(f"max_length {max_length} leaves {room} tokens for the two texts in the {form} form; raise it")
    prompts = _prompts(tokenizer, pairs := [revision.texts() for revision in revisions], labels, form)
    long = [i for i, ids in enumerate(prompts) if len(ids) > max_length]
    cut = [_shorten(tokenizer, pairs[i], room - 2) for i in long]  # a text that was cut may have a few tokens more
    for i, ids in zip(long, _prompts(tokenizer, cut, labels, form), strict=True):
        prompts[i] = ids[:max_length]
    return prompts


def _prompts(tokenizer, pairs: Sequence[tuple[str, str]], labels: Sequence[str], form: str) -> list[list[int]]:
    if form == "instruction":
        texts = ([instruction(before, after, labels) for before, after in pairs],)
    else:  # a tokenizer without a separator token gets a line break between the two texts
        (*_, last), (first, *_) = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b"))
        separates = (last, first) not in itertools.pairwise(tokenizer("a", "b")["input_ids"])
        texts = [before for before, _ in pairs], ["\n" * (not separates) + after for _, after in pairs]
    return tokenizer(*texts, verbose=False)["input_ids"] if pairs else []


def _shorten(tokenizer, pair: tuple[str, str], room: int) -> tuple[str, str]:
    """Cut the ends of two texts, so that together they have at most `room` tokens."""
    # The tokenizer's own truncation would give other ids, and the recorded results rest on these.
    spans = tokenizer([*pair], add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    before, after = map(len, spans)
    keep_after = min(after, max(room // 2, room - before))
    keep = min(before, room - keep_after), keep_after
    ends = [len(t) if n == len(s) else s[n - 1][1] if n else 0 for t, s, n in zip(pair, spans, keep, strict=True)]
    return pair[0][: ends[0]], pair[1][: ends[1]]

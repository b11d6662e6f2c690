"""Token ids of revisions, written in one of four forms: a pair of texts or one text with marks, with a task or not."""

import itertools
from collections.abc import Callable, Sequence

from irtuning.corpora.base import Revision
from irtuning.corpora.marked import fitting_text, hunks_of, marked_text
from irtuning.errors import InputError, unknown

FORMS = ("pair", "instruction", "marked", "instruction-marked")
MARKED_TASK = " Deleted words stand in <del> </del>, inserted words in <ins> </ins>."


def task(labels: Sequence[str]) -> str:
    """Return the sentences with which the two instruction forms begin: what to do, and the classes."""
    return f"A writer revised a text. Name the intention behind the revision, one of: {', '.join(labels)}."


def instruction(before: str, after: str, labels: Sequence[str]) -> str:
    """Return the instruction form: the task with its classes, then both texts, each under a heading."""
    return f"{task(labels)}\n\n### Original text\n{before}\n\n### Revised text\n{after}"


def encode(revisions: Sequence[Revision], tokenizer: Callable, labels: Sequence[str], form: str = "pair",
           max_length: int = 256) -> list[list[int]]:  # fmt: skip
    """Return the token ids of each revision by a Hugging Face tokenizer, at most `max_length` of them.

    The forms `pair` and `instruction` have both texts. If these are too long, their ends are cut, and the revised text
    keeps half of the room or more. The forms `marked` and `instruction-marked` have one text, see
    `irtuning.corpora.marked`, which keeps the edit and the words around it.
    InputError is raised where the form is unknown, or leaves no room for the texts.
    """
    if form not in FORMS:
        raise unknown("input form", form, FORMS)
    room = max_length - len(_prompts(tokenizer, [("", "")], labels, form)[0])
    if room < 8:
        raise InputError(f"max_length {max_length} leaves {room} tokens for the two texts in the {form} form; raise it")
    marked = form.endswith("marked")
    pairs = [("", marked_text(hunks_of(r))) if marked else r.texts() for r in revisions]
    prompts = _prompts(tokenizer, pairs, labels, form)
    long = [i for i, ids in enumerate(prompts) if len(ids) > max_length]
    def fits(text: str) -> bool:
        return len(_prompts(tokenizer, [("", text)], labels, form)[0]) <= max_length
    # a text that was cut may have a few tokens more
    cut = [("", fitting_text(hunks_of(revisions[i]), fits)) if marked else _shorten(tokenizer, pairs[i], room - 2)
           for i in long]  # fmt: skip
    for i, ids in zip(long, _prompts(tokenizer, cut, labels, form), strict=True):
        prompts[i] = ids[:max_length]
    return prompts


def _prompts(tokenizer, pairs: Sequence[tuple[str, str]], labels: Sequence[str], form: str) -> list[list[int]]:
    if form == "instruction":
        texts = ([instruction(before, after, labels) for before, after in pairs],)
    elif form.endswith("marked"):  # the second text is the marked one
        head = f"{task(labels)}{MARKED_TASK}\n\n### Text\n" if form == "instruction-marked" else ""
        texts = ([head + text for _, text in pairs],)
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

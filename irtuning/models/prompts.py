"""Token ids of revisions: the instruction form for large models, the plain pair for small ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from irtuning.corpora.base import Revision
from irtuning.errors import InputError, unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMS = ("pair", "instruction")
INSTRUCTION = (
    "A writer revised a text. Name the intention behind the revision, one of: {labels}.\n\n"
    "### Original text\n{before}\n\n### Revised text\n{after}"
)


def instruction(before: str, after: str, labels: Sequence[str]) -> str:
    """Return the instruction form: the task with its classes, then both texts, each under a heading."""
    return INSTRUCTION.format(labels=", ".join(labels), before=before, after=after)


def encode(
    revisions: Sequence[Revision], tokenizer: "PreTrainedTokenizerBase", labels: Sequence[str],
    form: str = "pair", max_length: int = 256,
) -> list[list[int]]:  # fmt: skip
    """Return the token ids of each revision, at most `max_length` of them.

    Where a prompt is too long, the ends of its two texts are cut, the longer text first. The revised text keeps at
    least half of the room.

    Raises:
        InputError: the form is unknown, or it leaves no room for the texts.
    """
    if form not in FORMS:
        raise unknown("input form", form, FORMS)
    room = max_length - len(_prompts(tokenizer, [("", "")], labels, form)[0])
    if room < 8:
        raise InputError(f"max_length {max_length} leaves {room} tokens for the two texts in the {form} form; raise it")
    pairs = [revision.texts() for revision in revisions]
    prompts = _prompts(tokenizer, pairs, labels, form)
    long = [i for i, ids in enumerate(prompts) if len(ids) > max_length]
    cut = [_shorten(tokenizer, pairs[i], room - 2) for i in long]  # a text that was cut may have a few tokens more
    for i, ids in zip(long, _prompts(tokenizer, cut, labels, form), strict=True):
        prompts[i] = ids[:max_length]
    return prompts


def _prompts(tokenizer, pairs: Sequence[tuple[str, str]], labels: Sequence[str], form: str) -> list[list[int]]:
    if form == "instruction":
        texts = ([instruction(before, after, labels) for before, after in pairs],)
    else:
        between = "" if _separates(tokenizer) else "\n"
        texts = [before for before, _ in pairs], [between + after for _, after in pairs]
    return tokenizer(*texts, verbose=False)["input_ids"] if pairs else []


def _separates(tokenizer) -> bool:
    """Return whether the tokenizer puts a token of its own between the two texts of a pair."""
    (*_, last), (first, *_) = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b"))
    joined = tokenizer("a", "b")["input_ids"]
    return (last, first) not in zip(joined, joined[1:], strict=False)


def _shorten(tokenizer, pair: tuple[str, str], room: int) -> tuple[str, str]:
    """Cut the ends of two texts, so that together they have at most `room` tokens.

    The tokenizer's own truncation uses the room to its end, so it gives other ids; recorded results rest on these.
    """
    given = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    spans = [tokenizer(text, **given)["offset_mapping"] for text in pair]
    before, after = map(len, spans)
    keep_after = min(after, max(room // 2, room - before))
    keep = min(before, room - keep_after), keep_after
    ends = [len(t) if n == len(s) else s[n - 1][1] if n else 0 for t, s, n in zip(pair, spans, keep, strict=True)]
    return pair[0][: ends[0]], pair[1][: ends[1]]

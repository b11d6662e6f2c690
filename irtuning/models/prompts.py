"""From revisions to token ids: the instruction form for large models, the plain pair for small ones."""

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
    """The instruction form: the task with its classes, then both texts, each under its own heading."""
    return INSTRUCTION.format(labels=", ".join(labels), before=before, after=after)


def encode(
    revisions: Sequence[Revision],
    tokenizer: "PreTrainedTokenizerBase",
    labels: Sequence[str],
    form: str = "pair",
    max_length: int = 256,
) -> list[list[int]]:
    """Token ids of each revision's prompt, at most `max_length` long.

    A prompt that is too long loses the ends of its two texts, the longer first; the revised text keeps at least
    half of the room.

    Raises:
        InputError: an unknown form, or a form that leaves no room for the texts.
    """
    if form not in FORMS:
        raise unknown("input form", form, FORMS)
    room = max_length - len(_prompt(tokenizer, [("", "")], labels, form)[0])
    if room < 8:
        raise InputError(f"max_length {max_length} leaves {room} tokens for the two texts in the {form} form; raise it")
    pairs = [revision.texts() for revision in revisions]
    prompts = _prompt(tokenizer, pairs, labels, form)
    long = [i for i, ids in enumerate(prompts) if len(ids) > max_length]
    shortened = [_shorten(tokenizer, pairs[i], room - 2) for i in long]  # 2: cut texts may tokenise a little longer
    for i, ids in zip(long, _prompt(tokenizer, shortened, labels, form), strict=True):
        prompts[i] = ids[:max_length]
    return prompts


def _prompt(tokenizer, pairs: Sequence[tuple[str, str]], labels: Sequence[str], form: str) -> list[list[int]]:
    if not pairs:
        return []
    if form == "instruction":
        return tokenizer([instruction(before, after, labels) for before, after in pairs], verbose=False)["input_ids"]
    between = "" if _separates(tokenizer) else "\n"
    return tokenizer([before for before, _ in pairs], [between + after for _, after in pairs], verbose=False)[
        "input_ids"
    ]


def _separates(tokenizer) -> bool:
    """Whether the tokenizer puts a token of its own between the texts of a pair."""
    alone = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "b")]
    joined = tokenizer("a", "b")["input_ids"]
    start = joined.index(alone[0][0])
    return joined[start : start + 2] != [alone[0][-1], alone[1][0]]


def _shorten(tokenizer, pair: tuple[str, str], room: int) -> tuple[str, str]:
    """Cut the ends of two texts so that together they have at most `room` tokens."""
    offsets = [
        tokenizer(t, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        for t in pair
    ]
    before, after = map(len, offsets)
    keep_after = min(after, max(room // 2, room - before))
    keep = min(before, room - keep_after), keep_after
    return tuple(
        text if kept == len(spans) else text[: spans[kept - 1][1] if kept else 0]
        for text, spans, kept in zip(pair, offsets, keep, strict=True)
    )

"""HTML that shows revisions in a notebook."""

from collections.abc import Iterable
from html import escape

from irtuning.corpora.diff import word_diff

DELETED = "background:#fbe3d6;text-decoration:line-through;color:#8a3b00"
INSERTED = "background:#d6e9f8;color:#003f72;font-weight:600"


def revision_html(before: str, after: str, intention: str = "") -> str:
    """Return a revision as a line of HTML: the intention, then the text with deletions and insertions marked."""
    parts = []
    for operation, old, new in word_diff(before, after):
        sides = [(new, "")] if operation == "equal" else [(old, DELETED), (new, INSERTED)]
        marked = [(escape(" ".join(words)), style) for words, style in sides if words]
        parts += [f"<span style='{style}'>{text}</span>" if style else text for text, style in marked]
    name = f"<b>{escape(intention)}</b>" if intention else ""
    return f"<div style='max-width:60em;margin:0.3em 0'>{name} {' '.join(parts)}</div>"


def revisions_html(revisions: Iterable) -> str:
    """Return the HTML of several revisions, one below the other."""
    return "".join(revision._repr_html_() for revision in revisions)

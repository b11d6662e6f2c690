"""Differences between two texts, word by word, and HTML that shows them."""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

DELETED = "background:#fbe3d6;text-decoration:line-through;color:#8a3b00"
INSERTED = "background:#d6e9f8;text-decoration:none;color:#003f72;font-weight:600"
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 46em; margin: 1em auto; padding: 0 1em }}
section {{ border-left: 3px solid #999; padding-left: 0.8em; margin: 0.8em 0; break-inside: avoid }}
small {{ color: #444 }} * {{ print-color-adjust: exact; -webkit-print-color-adjust: exact }}
</style></head><body><h1>{title}</h1><p>{counts}</p>{body}</body></html>
"""


def word_diff(before: str, after: str) -> list[tuple[str, list[str], list[str]]]:
    """Return the differences of two texts, word by word, as (operation, before_words, after_words) in text order.

    Operations are those of difflib: equal, replace, delete, insert. Two empty texts give an empty list.

    >>> word_diff("a red car", "a car stops")
    [('equal', ['a'], ['a']), ('delete', ['red'], []), ('equal', ['car'], ['car']), ('insert', [], ['stops'])]
    """
    old, new = before.split(), after.split()
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [(operation, old[i:j], new[k:m]) for operation, i, j, k, m in matcher.get_opcodes()]


def revision_html(before: str, after: str, intention: str = "") -> str:
    """Return a revision as a line of HTML: the intention, then the text with deletions and insertions marked."""
    parts = []
    for operation, old, new in word_diff(before, after):
        sides = [(new, "", "")] if operation == "equal" else [(old, "del", DELETED), (new, "ins", INSERTED)]
        marked = [(escape(" ".join(words)), tag, style) for words, tag, style in sides if words]
        parts += [f"<{tag} style='{style}'>{text}</{tag}>" if tag else text for text, tag, style in marked]
    name = f"<b>{escape(intention)}</b>" if intention else ""
    return f"<div style='max-width:60em;margin:0.3em 0'>{name} {' '.join(parts)}</div>"


def quiz_html(revisions: Iterable) -> str:
    """Return the HTML of a numbered list of revisions, each with its intention hidden until a reader asks for it."""
    rows = ((revision_html(*r.texts()), escape(r.intention)) for r in revisions)
    items = (f"<li>{shown}<details><summary>intention</summary><b>{name}</b></details></li>" for shown, name in rows)
    return f"<ol>{''.join(items)}</ol>"


def shares_html(probabilities: Mapping[str, float]) -> str:
    """Return the HTML of probabilities by label, the highest first, each as a small bar with its number."""
    ordered = sorted(probabilities.items(), key=lambda item: -item[1])
    bars = (f"{escape(label)}&nbsp;<meter value='{share:.3f}'></meter>&nbsp;{share:.2f}" for label, share in ordered)
    return f"<small>{' · '.join(bars)}</small>"


def predictions_page(rows: Sequence[Mapping], title: str) -> str:
    """Return a self-contained HTML page of predictions as rows, with counts of intentions. Unchanged text is plain."""
    counts, body = Counter(row["intention"] for row in rows if row["intention"]), ""
    for row in rows:
        shown = revision_html(row["before"], row["after"], row["intention"] or "")
        body += f"<section>{shown}{shares_html(row['probabilities'])}</section>" if row["intention"] else shown
    text = ", ".join(f"{count} {label}" for label, count in counts.most_common())
    text = f"{counts.total()} of {len(rows)} were revised: {text}. Struck out was deleted, bold was inserted."
    return PAGE.format(title=escape(title), counts=escape(text), body=body)

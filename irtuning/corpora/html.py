"""How revisions, corpora, formulas and progress show themselves in a notebook or its page."""

import base64
import html
import io
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.corpora.edits import word_diff

if TYPE_CHECKING:
    from tqdm import tqdm

DELETED = "background:#fbe3d6;text-decoration:line-through;color:#8a3b00"
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$", re.DOTALL)
INSERTED = "background:#d6e9f8;color:#003f72;font-weight:600"


def revision_html(revision: Revision) -> str:
    """A revision as one line of text with deleted words struck out, inserted ones marked, and its intention."""
    parts = []
    for operation, before, after in word_diff(*revision.texts()):
        if operation == "equal":
            parts.append(html.escape(" ".join(after)))
            continue
        parts += [_span(before, DELETED)] if before else []
        parts += [_span(after, INSERTED)] if after else []
    intention = f"<b>{html.escape(revision.intention)}</b>" if revision.intention else ""
    return f"<div style='max-width:60em;margin:0.3em 0'>{intention} {' '.join(parts)}</div>"


def revisions_html(revisions: Sequence[Revision]) -> str:
    """Several revisions, one below the other."""
    return "".join(revision_html(revision) for revision in revisions)


def corpus_html(corpus: Corpus) -> str:
    """A corpus as a table of label counts by split, with licence and checksum."""
    counts = corpus.counts()
    kind = "SYNTHETIC" if corpus.synthetic else "real"
    head = "".join(f"<th>{split}</th>" for split in SPLITS)
    rows = "".join(
        f"<tr><td style='text-align:left'>{html.escape(label)}</td>"
        + "".join(f"<td>{counts[split][label]:,}</td>" for split in SPLITS)
        + "</tr>"
        for label in corpus.labels
    )
    total = "".join(f"<td><b>{len(corpus.split(split)):,}</b></td>" for split in SPLITS)
    return (
        f"<p><b>{html.escape(corpus.name)}</b> ({kind}, fold {corpus.fold}) · {html.escape(corpus.licence)} · "
        f"checksum {corpus.checksum[:12]}</p>"
        f"<table><tr><th style='text-align:left'>intention</th>{head}</tr>{rows}"
        f"<tr><td style='text-align:left'><b>all</b></td>{total}</tr></table>"
    )


def _span(words: list[str], style: str) -> str:
    return f"<span style='{style}'>{html.escape(' '.join(words))}</span>"


def drawn_formulas(markdown: str) -> str:
    """Markdown with its LaTeX formulas as pictures, so that a page shows them without a network.

    >>> drawn_formulas("for $i = 1$")[:29]
    'for <img alt="i = 1" style="v'
    """
    from matplotlib.mathtext import math_to_image

    def draw(found: re.Match) -> str:
        formula, image = (found[1] or found[2]).strip(), io.BytesIO()
        depth = math_to_image(f"${formula}$", image, format="svg", dpi=72)  # below the base line, in points
        source = base64.b64encode(image.getvalue()).decode()
        style = f"vertical-align:-{depth:.0f}pt"
        return f'<img alt="{html.escape(formula)}" style="{style}" src="data:image/svg+xml;base64,{source}">'

    return FORMULA.sub(draw, markdown)


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def progress_bar(items: Iterable | None = None, **options: object) -> "tqdm":
    """A tqdm bar; in a notebook one cell output that is replaced in place, and a plain count at the end."""
    from tqdm import tqdm

    if not in_notebook() or options.get("disable"):
        return tqdm(items, **options)
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)

    class CellBar(tqdm):
        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            state = self.format_dict
            text = html.escape(f"{state['prefix']} {state['n']} of {state['total']}")
            if state["n"] < state["total"]:
                text = f"<progress value='{state['n']}' max='{state['total']}'></progress> {text} {self.postfix or ''}"
            handle.update(HTML(text))

    return CellBar(items, file=io.StringIO(), mininterval=0.5, **options)

"""A panel for labelling revisions by hand in JupyterLab, with a model's suggestions. Each answer is saved at once."""

import datetime
import getpass
import json
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from html import escape
from itertools import chain
from pathlib import Path

import pandas
from ipywidgets import HTML, Button, HBox, IntProgress, Layout, Text, VBox
from scipy.stats import entropy

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.html import revision_html, shares_html
from irtuning.corpora.reading import Row, read_rows, with_columns
from irtuning.errors import InputError
from irtuning.training.classifier import RevisionClassifier
from irtuning.training.record import write_bytes

KEYS = "123456789abcdefghijklmopqrstvwxyz"  # of the labels; n and u are next and undo
ANSWER = ["id", "before", "after", "label", "annotator", "first", "suggestion", "drawn"]  # what each answer must have


def annotate(
    table_or_corpus: Corpus | pandas.DataFrame | Sequence[Revision] | str | Path, labels: Sequence[str] = (),
    suggestions: str | Path | RevisionClassifier | None = None, output: str | Path = "labels.jsonl", *,
    annotator: str = "", show: str = "after", order: str = "", seed: int = 171) -> "Panel":  # fmt: skip
    """Return a panel for labelling revisions, for a notebook to show. Called again, it goes on where one stopped.

    Args:
        table_or_corpus: a table or its file with the columns `before` and `after`, and perhaps `id` and `group`, a list
            of revisions, or a corpus, of which the training part is labelled anew. Pairs without change are left out.
        labels: the intentions. By default those of the corpus, or else of the run.
        suggestions: the folder of a saved run, or a classifier, whose predictions are shown.
        output: the annotator's own file of answers, a JSON object per line, for `irtuning.train(corpus=output)`.
        annotator: who labels. By default the name of this computer's user.
        show: whether the suggestion is shown `after` a first choice, which can then be changed, or `before` it.
        order: what comes next: `uncertain` (the suggestion of highest entropy), `random`, or both in turn (`mixed`, the
            default with suggestions). `seed` decides the random order. Each answer has its rank there, and how it came.

    Raises:
        InputError: an argument cannot work, or `output` has another annotator's answers, or those to other texts.
    """
    given = _revisions(table_or_corpus)
    revisions = {r.id: r for r in given if len({text.strip() for text in r.texts()}) > 1}
    if isinstance(suggestions, str | Path):
        suggestions = RevisionClassifier.load(suggestions)
    known = table_or_corpus.labels if isinstance(table_or_corpus, Corpus) else getattr(suggestions, "labels", ())
    labels = list(labels) or list(known)
    order, path = order or ("mixed" if suggestions else "random"), Path(output)
    wrong = {
        f"show is {show!r}, give after or before": show not in ("after", "before"),
        f"order is {order!r}, give mixed, uncertain or random": order not in ("mixed", "uncertain", "random"),
        f"order {order!r} needs suggestions; give a run": order != "random" and not suggestions,
        f"labels are {labels}; give 2 to {len(KEYS)} different": not 2 <= len({*labels}) == len(labels) <= len(KEYS),
        "an id occurs twice; give each revision an id of its own": len({r.id for r in given}) < len(given),
        f"output {str(output)!r} holds JSON Lines; end its name in .jsonl": path.suffix != ".jsonl"}  # fmt: skip
    if problems := [problem for problem, there in wrong.items() if there]:
        raise InputError("; ".join(problems))
    predictions = suggestions.predict(revisions.values()) if suggestions else []
    shares = {name: p.probabilities for name, p in zip(revisions, predictions, strict=False)}
    return Panel(revisions, labels, shares, path, annotator or getpass.getuser(), show, order, seed)


def _revisions(given) -> Sequence[Revision]:
    if isinstance(given, str | Path):
        rows = read_rows(Path(given))
    elif isinstance(given, pandas.DataFrame):
        rows = [Row(f"the table, row {n}", n, cells) for n, cells in enumerate(given.to_dict("records"), start=1)]
    else:
        return getattr(given, "train", given)
    rows = with_columns(rows, ["before", "after"])
    return [Revision(r.text("id") or str(r.line), r.text("before"), r.text("after"), "", r.text("group")) for r in rows]


class Panel(VBox):
    """The panel that `annotate` returns. Its buttons and keys call `choose`, `next` and `undo`."""
    def __init__(self, revisions, labels, shares, path, annotator, show, order, seed):
        self.revisions, self.shares, self.path, self.annotator, self.show = revisions, shares, path, annotator, show
        self.saved = path.read_bytes() if path.exists() else b""
        if self.saved.decode(errors="ignore").encode() != self.saved:  # no guess is to be written back
            raise InputError(f"{path} is not UTF-8; save it as UTF-8")
        self.rows = [row.cells for row in with_columns(read_rows(path), ANSWER)] if self.saved else []
        if others := {row["annotator"] for row in self.rows} - {annotator}:
            raise InputError(f"{path} has answers of {min(others)!r}; give another output to {annotator!r}")
        for row in self.rows:
            if (r := revisions.get(row["id"])) and r.texts() != (row["before"], row["after"]):
                raise InputError(f"{path} has an answer to another text with the id {r.id!r}; give another output")
        shuffled = random.Random(seed).sample(list(revisions), len(revisions))
        self.ranks = {name: rank for rank, name in enumerate(shuffled)}
        orders = {"random": shuffled, "uncertain": sorted(shares, key=lambda name: -entropy([*shares[name].values()]))}
        done, drawn = {row["id"]: row["drawn"] for row in self.rows}, {}  # how each came: random or uncertain
        lists = [[(name, how) for name in orders[how] if name not in done] for how in orders if order in (how, "mixed")]
        for name, how in chain.from_iterable(zip(*lists, strict=True)):
            drawn.setdefault(name, how)
        self.queue, self.drawn, self.waiting = [*drawn], done | drawn, False  # waiting for a second look at an answer
        self.seen = {row["id"] for row in self.rows if row["suggestion"]}
        actions = {label: partial(self.choose, label) for label in labels} | {"next": self.next, "undo": self.undo}
        self.actions, self.buttons, wide = {}, {}, Layout(width="auto")
        for key, (name, action) in zip([*KEYS[: len(labels)], "n", "u"], actions.items(), strict=True):
            self.actions[key], self.buttons[name] = action, Button(description=f"{key} {name}", layout=wide)
            self.buttons[name].on_click(lambda _, action=action: action())
        self.text, self.suggestion, self.progress, self.bar = HTML(), HTML(), HTML(), IntProgress(max=len(revisions))
        self.note, self.key = Text(description="note"), Text(description="keys", placeholder="press a key here")
        self.key.observe(self._press, "value")
        buttons = HBox([*self.buttons.values()], layout=Layout(flex_flow="wrap"))
        super().__init__([HBox([self.bar, self.progress]), self.text, buttons, self.suggestion, self.note, self.key])
        self._draw()

    @property
    def current(self) -> Revision | None:
        """The revision that is shown, or None if all are labelled."""
        return self.revisions[self.queue[0]] if self.queue else None

    def _repr_mimebundle_(self, **options) -> dict:
        """Return the live panel, and for a page that has no kernel the picture that it shows now."""
        keys = escape(" · ".join(button.description for button in self.buttons.values()))
        page = f"{self.progress.value}<br>{self.text.value}<br>{keys}<br>{self.suggestion.value}"
        return super()._repr_mimebundle_(**options) | {"text/html": page}

    def choose(self, label: str) -> None:
        """Save the label of the revision that is shown. After its suggestion was shown, change or keep it."""
        if not (r := self.current):
            return
        earlier, first = (self.rows[:-1], self.rows[-1]["first"]) if self.waiting else (self.rows, label)
        row = dict(zip(("id", "before", "after", "label", "group"), (r.id, *r.texts(), label, r.group), strict=True))
        row |= {"annotator": self.annotator, "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "first": first, "seen": r.id in self.seen, "show": self.show, "suggestion": self.shares.get(r.id),
                "drawn": self.drawn[r.id], "random_rank": self.ranks[r.id], "note": self.note.value}  # fmt: skip
        if self._save([*earlier, row]):
            self.waiting = r.id in self.shares and r.id not in self.seen
            if not self.waiting:
                self.queue, self.note.value = self.queue[1:], ""
            self._draw()

    def next(self) -> None:
        """Go on: keep the label whose suggestion was shown, or skip the revision, which comes again at the end."""
        if self.waiting:
            return self.choose(self.rows[-1]["label"])
        self.queue, self.note.value = [*self.queue[1:], *self.queue[:1]], ""
        self._draw()

    def undo(self) -> None:
        """Remove the last answer from the file, if it is one to this panel's revisions, which is then shown again."""
        last = self.rows[-1] if self.rows else {}
        if last.get("id") in self.revisions and self._save(self.rows[:-1]):
            self.queue = [last["id"], *(name for name in self.queue if name != last["id"])]
            self.waiting, self.note.value = False, last.get("note", "")
            self._draw()

    def _press(self, change) -> None:
        for key in change["new"]:
            self.actions.get(key, lambda: None)()
        self.key.value = ""

    def _save(self, rows: list[dict]) -> bool:
        """Replace the file of answers as a whole, but not if anyone else has changed it. Show what went wrong."""
        try:
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
            if (self.path.read_bytes() if self.path.exists() else b"") != self.saved:
                raise InputError(f"{self.path} was changed elsewhere; call annotate again, or with another output")
            write_bytes(self.path, content)
        except (ValueError, OSError) as error:  # a button has no caller that could show it
            self.suggestion.value = f"<b>Not saved.</b> {escape(str(error))}"
            return False
        self.rows, self.saved = rows, content
        return True

    def _draw(self) -> None:
        r, counts = self.current, Counter(row["label"] for row in self.rows)
        self.text.value = revision_html(*r.texts()) if r else f"All are labelled, in {escape(str(self.path))}."
        visible = r and r.id in self.shares and (self.waiting or self.show == "before" or r.id in self.seen)
        self.suggestion.value = shares_html(self.shares[r.id]) if visible else ""
        self.seen |= {r.id} if visible else set()
        self.bar.value = len(self.revisions) - len(self.queue) + self.waiting
        amounts = ", ".join(f"{times} {label}" for label, times in counts.most_common())
        self.progress.value = escape(f"{self.bar.value} of {self.bar.max}: {amounts}")

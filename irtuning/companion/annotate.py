"""A panel for labelling revisions by hand in JupyterLab, with a model's suggestions. Each answer is saved at once."""

import datetime
import getpass
import json
import random
from collections import Counter
from collections.abc import Sequence
from functools import partial
from html import escape
from itertools import chain, count
from pathlib import Path

import pandas
from filelock import FileLock
from ipywidgets import HTML, Button, HBox, IntProgress, Layout, Text, VBox
from scipy.stats import entropy

from irtuning.corpora.base import Corpus, Revision
from irtuning.corpora.html import revision_html, shares_html
from irtuning.corpora.reading import Row, read_rows, rows_of_lines, with_columns
from irtuning.errors import InputError, brief, unknown
from irtuning.training.classifier import RevisionClassifier, read_revisions
from irtuning.training.record import write_text

CHOICES = {"show": ("after", "before"), "order": ("mixed", "uncertain", "random")}
KEYS = "123456789abcdefghijklmopqrtvwxyz"  # of the labels; n, s and u are next, skip and undo


def annotate(
    table_or_corpus: Corpus | pandas.DataFrame | Sequence[Revision] | str | Path, labels: Sequence[str] = (),
    suggestions: str | Path | RevisionClassifier | None = None, output: str | Path = "labels.jsonl", *,
    annotator: str = "", show: str = "after", order: str = "", seed: int = 171) -> "Panel":  # fmt: skip
    """Return a panel for labelling revisions, for a notebook to show. Called again, it goes on where one stopped.

    Args:
        table_or_corpus: a table or its file with the columns `before` and `after`, a list of revisions, or a corpus, of
            which the training part is labelled anew. Pairs without a change are left out.
        labels: the intentions. By default those of the corpus, or else of the run.
        suggestions: the folder of a saved run, or a classifier, whose predictions are shown.
        output: the annotator's own file of answers, a JSON object per line, for `irtuning.train(corpus=output)`.
        annotator: who labels. By default the name of this computer's user.
        show: whether the suggestion is shown `after` a first choice, which can then be changed, or `before` it.
        order: what comes next: `uncertain` (the suggestion of highest entropy), `random`, or both in turn (`mixed`, the
            default with suggestions). `seed` decides the random order. Each answer records it; see `random_part`.

    Raises:
        InputError: an argument cannot work, or `output` has another annotator's answers.
    """
    revisions = [r for r in _read(table_or_corpus) if len({text.strip() for text in r.texts()}) > 1]
    if isinstance(suggestions, str | Path):
        suggestions = RevisionClassifier.load(suggestions)
    labels = list(labels or getattr(table_or_corpus, "labels", ()) or getattr(suggestions, "labels", ()))
    order = order or ("mixed" if suggestions else "random")
    for name, value in (("show", show), ("order", order)):
        if value not in CHOICES[name]:
            raise unknown(name, value, CHOICES[name])
    if not revisions or not 2 <= len({*labels}) == len(labels) <= len(KEYS):
        need = f"give one revision or more, and 2 to {len(KEYS)} different labels"
        raise InputError(f"{len(revisions)} revisions to label with {brief(labels)}; {need}")
    if repeated := [name for name, times in Counter(r.id for r in revisions).items() if times > 1]:
        raise InputError(f"ids occur twice: {brief(repeated)}; give each revision an id of its own")
    if Path(output).suffix != ".jsonl":
        raise InputError(f"output {str(output)!r} holds JSON Lines; end its name in .jsonl")
    if order != "random" and not suggestions:
        raise InputError(f"order {order!r} needs suggestions; give a run, or order='random'")
    answers = Answers(Path(output), annotator or getpass.getuser())
    predictions = suggestions.predict(revisions) if suggestions else []
    shares = {r.id: p.probabilities for r, p in zip(revisions, predictions, strict=False)}
    return Panel(revisions, labels, shares, answers, show, order, seed)


def _read(given) -> Sequence[Revision]:
    if isinstance(given, str | Path):
        return read_revisions(str(given), {}, dict.fromkeys(("before", "after", "label"), ""))
    if not isinstance(given, pandas.DataFrame):
        return getattr(given, "train", given)
    cells = enumerate(given.to_dict("records"), start=1)
    rows = with_columns([Row(f"the table, row {n}", n, row) for n, row in cells], ["before", "after"])
    return [Revision(row.text("id") or str(row.line), row.text("before"), row.text("after"), "") for row in rows]


def read_answers(*paths: str | Path) -> pandas.DataFrame:
    """Return the answers in one or more files, a row each. See `irtuning.analysis.agreement`."""
    return pandas.DataFrame([row.cells for path in paths for row in read_rows(Path(path))])


def random_part(answers: pandas.DataFrame) -> pandas.DataFrame:
    """Return the answers whose ranks in the random order have no gap: a random sample, so scores on it are unbiased."""
    ranks = set(answers.random_rank)
    return answers[answers.random_rank < next(rank for rank in count() if rank not in ranks)]


class Answers:
    """The answers of one annotator in a file, which is replaced as a whole, and not if anyone else has changed it."""
    def __init__(self, path: Path, annotator: str):
        self.path, self.annotator, self.text = path, annotator, path.read_text("utf-8") if path.exists() else ""
        self.rows = [row.cells for row in rows_of_lines(self.text, str(path))]
        if others := {str(row.get("annotator")) for row in self.rows} - {annotator}:
            raise InputError(f"{path} has answers of {min(others)!r}; give another output to {annotator!r}")

    def write(self, rows: list[dict]) -> None:
        """Replace the answers. InputError if the file is not as this object left it."""
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.name}.lock")):
            if (self.path.read_text("utf-8") if self.path.exists() else "") != self.text:
                raise InputError(f"{self.path} was changed elsewhere; call annotate again, perhaps with another output")
            write_text(self.path, text)
        self.rows, self.text = rows, text


class Panel(VBox):
    """The panel that `annotate` returns. Its buttons and keys call `choose`, `next`, `skip` and `undo`."""
    def __init__(self, revisions, labels, shares, answers, show, order, seed):
        self.revisions, self.shares, self.answers, self.show = {r.id: r for r in revisions}, shares, answers, show
        shuffled = random.Random(seed).sample(list(self.revisions), len(revisions))
        self.ranks, done = {name: rank for rank, name in enumerate(shuffled)}, {row["id"]: row for row in answers.rows}
        lists = {"random": shuffled, "uncertain": sorted(shares, key=lambda name: -entropy([*shares[name].values()]))}
        lists = [[(item, how) for item in lists[how] if item not in done] for how in lists if order in (how, "mixed")]
        self.drawn = {name: row.get("drawn") for name, row in done.items()}  # how each was drawn, in the order of work
        for item, how in chain.from_iterable(zip(*lists, strict=True)):
            self.drawn.setdefault(item, how)
        self.queue, self.waiting = [name for name in self.drawn if name not in done], False
        self.seen = {name for name, row in done.items() if row.get("suggestion")}
        self.actions = {key: (label, partial(self.choose, label)) for key, label in zip(KEYS, labels, strict=False)}
        self.actions |= {"n": ("next", self.next), "s": ("skip", self.skip), "u": ("undo", self.undo)}
        self.buttons = {name: Button(description=f"{key} {name}") for key, (name, _) in self.actions.items()}
        for (_, action), button in zip(self.actions.values(), self.buttons.values(), strict=True):
            button.on_click(lambda _, action=action: action())
        self.text, self.suggestion, self.progress, self.bar = HTML(), HTML(), HTML(), IntProgress(max=len(revisions))
        self.note, self.key = Text(description="note"), Text(description="keys", placeholder="press a key here")
        self.key.observe(self._press, "value")
        rows = list(self.buttons.values())
        head, labels = HBox([self.bar, self.progress]), HBox(rows[:-3], layout=Layout(flex_flow="wrap"))
        super().__init__([head, self.text, labels, self.suggestion, HBox(rows[-3:]), self.note, self.key])
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
        earlier = self.answers.rows[:-1] if self.waiting else self.answers.rows
        first = self.answers.rows[-1]["first"] if self.waiting else label
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        row = dict(zip(("id", "before", "after", "label"), (r.id, *r.texts(), label), strict=True))
        row |= ({"group": r.group} if r.group else {}) | {"first": first, "note": self.note.value, "time": now}
        row |= {"annotator": self.answers.annotator, "seen": r.id in self.seen, "show": self.show}
        row |= {"suggestion": self.shares.get(r.id), "drawn": self.drawn[r.id], "random_rank": self.ranks[r.id]}
        if self._saved([*earlier, row]):
            self.waiting = r.id in self.shares and r.id not in self.seen
            if not self.waiting:
                self.queue, self.note.value = self.queue[1:], ""
            self._draw()

    def next(self) -> None:
        """Keep the label after its suggestion was shown, and go on."""
        if self.waiting:
            self.choose(self.answers.rows[-1]["label"])

    def skip(self) -> None:
        """Put the revision off to the end. After a first choice, go on as `next` does."""
        if self.waiting:
            return self.next()
        self.queue = [*self.queue[1:], *self.queue[:1]]
        self._draw()

    def undo(self) -> None:
        """Remove the last answer from the file, and show its revision again if it is among those of this panel."""
        last = self.answers.rows[-1:]
        if last and self._saved(self.answers.rows[:-1]):
            again = [row["id"] for row in last if row["id"] in self.revisions]
            self.queue, self.waiting = [*again, *(name for name in self.queue if name not in again)], False
            self._draw()

    def _press(self, change) -> None:
        for key in change["new"]:
            self.actions.get(key, ("", lambda: None))[1]()
        self.key.value = ""

    def _saved(self, rows: list[dict]) -> bool:
        try:
            self.answers.write(rows)
        except (InputError, OSError) as error:  # a button has no caller that could show it
            self.suggestion.value = f"<b>Not saved.</b> {escape(str(error))}"
            return False
        return True

    def _draw(self) -> None:
        r, counts = self.current, Counter(row["label"] for row in self.answers.rows)
        self.text.value = revision_html(*r.texts()) if r else f"All are labelled, in {escape(str(self.answers.path))}."
        visible = r and r.id in self.shares and (self.waiting or self.show == "before" or r.id in self.seen)
        self.suggestion.value = shares_html(self.shares[r.id]) if visible else ""
        self.seen |= {r.id} if visible else set()
        self.bar.value = len(self.revisions) - len(self.queue) + self.waiting
        amounts = ", ".join(f"{times} {label}" for label, times in counts.most_common())
        self.progress.value = escape(f"{self.bar.value} of {self.bar.max}: {amounts}")

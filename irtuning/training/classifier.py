"""A trained classifier: load a saved run, and predict the intentions of revisions with their probabilities."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas
import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from irtuning.corpora.base import Revision
from irtuning.corpora.floors import simple_floors
from irtuning.corpora.html import predictions_page
from irtuning.corpora.reading import read_rows, rows_of_lines, with_columns
from irtuning.errors import InputError, brief
from irtuning.models.adapters import no_rename_warning  # importing it registers the bottleneck with peft
from irtuning.models.loading import load_classifier, resolve
from irtuning.models.prompts import encode
from irtuning.models.speed import accelerate
from irtuning.training.metrics import score
from irtuning.training.prepare import available_device
from irtuning.training.record import read_record, write_text


@dataclass(frozen=True)
class Prediction:
    """The most probable intention and the probability of each label. A pair without a revision has only a note."""
    intention: str | None
    probabilities: dict[str, float]
    note: str = ""


class RevisionClassifier:
    """Classifier that predicts revision intentions with the weights of a saved run."""
    def __init__(self, model, tokenizer, labels: list[str], form: str, max_length: int):
        self.model, self.tokenizer = model.eval(), tokenizer
        self.labels, self.form, self.max_length = labels, form, max_length

    @classmethod
    def load(cls, folder: str | Path) -> "RevisionClassifier":
        """Return the classifier of the run in `folder`, on the GPU if there is one.

        Weights are read from safetensors only, and no remote code is run. An adapter also needs its base model, which
        is loaded by the name in the record. An InputError says what is missing or damaged.
        """
        folder, run = Path(folder), read_record(Path(folder))["run"]
        try:
            config, labels = run["config"], run["labels"]
            device = available_device(config.get("device", "auto"))
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", trust_remote_code=False)
            if (folder / "model").is_dir():
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    folder / "model", use_safetensors=True, trust_remote_code=False, output_loading_info=True)
                missing = report["missing_keys"]
            else:
                loading = {"precision": config["precision"], "quantize": config["quantize"]}
                base = load_classifier(resolve(config["model"], config["form"]), labels, tokenizer, **loading)
                stored = load_file(folder / "adapter" / "adapter_model.safetensors")
                with no_rename_warning():
                    model = PeftModel.from_pretrained(base, folder / "adapter")
                accelerate(model, {"float8"} & set(config["speed"] or ()), device)  # as it was trained
                missing = get_peft_model_state_dict(model, save_embedding_layers=False).keys() - stored.keys()
            if missing:
                raise InputError(f"the weights in {folder} lack {min(missing)}; train the run again")
            return cls(model.to(device), tokenizer, labels, config["form"], config["max_length"])
        except InputError:
            raise
        except Exception as error:  # the libraries that read the files raise many kinds
            raise InputError(f"{folder} cannot be loaded: {error!r}; train the run again") from error

    def predict(self, pairs: Iterable[tuple[str, str] | Revision], batch_size: int = 64) -> list[Prediction]:
        """Return the predicted intention of each (before, after) pair, in order. One of the two may be empty.

        Of a pair whose sides are equal the intention is None, since nothing was revised.
        """
        pairs = list(pairs)
        for pair in (pair for pair in pairs if not isinstance(pair, Revision)):
            if not (isinstance(pair, (tuple, list)) and [isinstance(text, str) for text in pair] == [True, True]):
                raise InputError(f"{brief(pair)} is no pair; give a list of (before, after), two texts each")
        given = [p if isinstance(p, Revision) else Revision(str(i), p[0], p[1], "") for i, p in enumerate(pairs)]
        revisions = [r for r in given if _changed(r)]
        ids = encode(revisions, self.tokenizer, self.labels, self.form, self.max_length)
        order, predictions = sorted(range(len(ids)), key=lambda i: len(ids[i])), {}  # like lengths need little padding
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            batch = self.tokenizer.pad({"input_ids": [ids[i] for i in positions]}, return_tensors="pt")
            with torch.inference_mode():
                rows = self.model(**batch.to(self.model.device)).logits.float().softmax(-1).tolist()
            for position, row in zip(positions, rows, strict=True):
                by_label = dict(zip(self.labels, row, strict=True))
                predictions[position] = Prediction(max(by_label, key=by_label.get), by_label)
        made = iter([predictions[i] for i in range(len(ids))])
        empty = {True: "nothing was revised", False: "both sides are empty"}
        return [next(made) if _changed(r) else Prediction(None, {}, empty[bool(r.before.strip())]) for r in given]


def _changed(revision: Revision) -> bool:
    before, after = revision.texts()
    return before.strip() != after.strip()


def read_revisions(file: str, config: Mapping[str, object], columns: Mapping[str, str]) -> list[Revision]:
    """Return the revisions in a table, or on standard input (`-`: JSON Lines), with their labels where it has them.

    The columns before, after and label have the names in `columns`, or else those of a run's configuration, or else
    their own. The identity of a row is its cell `id`, or its number.
    """
    rows = rows_of_lines(sys.stdin.read(), "standard input") if file == "-" else read_rows(Path(file))
    named = {name: columns[name] or config.get(name) or name for name in ("before", "after", "label")}
    try:
        rows = with_columns(rows, [named["before"], named["after"]])
    except InputError:
        if columns["before"] or columns["after"]:
            raise
        named |= {"before": "before", "after": "after"}
        rows = with_columns(rows, ["before", "after"])
    for name in ("id", named["label"]):
        with nullcontext() if name == columns["label"] else suppress(InputError):  # most files have neither
            rows = with_columns(rows, [name])
    texts = ([row.text("id") or str(row.line), *(row.text(name) for name in named.values())] for row in rows)
    return [Revision(*cells) for cells in texts]


def scores_of(predictions: Sequence[Prediction], revisions: Sequence[Revision], labels: Sequence[str]) -> list[dict]:
    """Return the scores of the predictions of labelled revisions, and of two rules that know these very labels.

    Revisions without one of the labels or without a change are not scored. If none is left, the list is empty.
    """
    scored = [(r, p) for r, p in zip(revisions, predictions, strict=True) if p.intention and r.intention in labels]
    if not scored:
        return []
    known, shares = [r for r, _ in scored], np.array([list(p.probabilities.values()) for _, p in scored])
    made = score([labels.index(r.intention) for r in known], shares, labels)
    rows = [{"name": "this run"} | made, *map(vars, simple_floors(labels, known, known, "file"))]
    names = ("macro_f1", "accuracy")
    return [{"scores of": row["name"], "rows": len(known)} | {name: row[name] for name in names} for row in rows]


def write_predictions(path: Path, rows: Sequence[dict]) -> None:
    """Write predictions as JSON Lines, as an HTML page, or as CSV with a column for each label's probability."""
    if path.suffix.lower() == ".html":
        return write_text(path, predictions_page(rows, path.stem))
    if path.suffix.lower() == ".jsonl":
        return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    flat = [row | {f"p({label})": share for label, share in row["probabilities"].items()} for row in rows]
    write_text(path, pandas.DataFrame(flat).drop(columns="probabilities").to_csv(index=False))

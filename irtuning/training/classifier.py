"""A trained classifier for use: load a saved run, give it pairs of texts, get intentions with probabilities."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from irtuning.corpora.base import Revision
from irtuning.corpora.reading import read_rows, require
from irtuning.errors import InputError, brief
from irtuning.models.adapters import no_rename_warning  # this module also makes the bottleneck known to peft
from irtuning.models.loading import load_classifier, resolve
from irtuning.models.prompts import encode
from irtuning.training.prepare import available_device
from irtuning.training.record import read_record


@dataclass(frozen=True)
class Prediction:
    """The likeliest intention, and every label's probability in label order."""
    intention: str
    probabilities: dict[str, float]


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
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", trust_remote_code=False)
            if (folder / "model").is_dir():
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    folder / "model", use_safetensors=True, trust_remote_code=False, output_loading_info=True
                )
                missing = report["missing_keys"]
            else:
                loading = {"precision": config["precision"], "quantize": config["quantize"]}
                base = load_classifier(resolve(config["model"], config["form"]), labels, tokenizer, **loading)
                stored = load_file(folder / "adapter" / "adapter_model.safetensors")
                with no_rename_warning():
                    model = PeftModel.from_pretrained(base, folder / "adapter")
                missing = get_peft_model_state_dict(model, save_embedding_layers=False).keys() - stored.keys()
            if missing:
                raise InputError(f"the weights in {folder} lack {min(missing)}; train the run again")
            return cls(model.to(available_device()), tokenizer, labels, config["form"], config["max_length"])
        except InputError:
            raise
        except Exception as error:  # of many kinds, from the libraries that read the files
            raise InputError(f"{folder} cannot be loaded: {error!r}; train the run again") from error

    def predict(self, pairs: Iterable[tuple[str, str] | Revision], batch_size: int = 64) -> list[Prediction]:
        """Return the predicted intention of each (before, after) pair, in order. One of the two may be empty."""
        pairs = list(pairs)
        for pair in (pair for pair in pairs if not isinstance(pair, Revision)):
            if not (isinstance(pair, (tuple, list)) and [isinstance(text, str) for text in pair] == [True, True]):
                raise InputError(f"{brief(pair)} is no pair: give a list of (before, after), both texts, one may be ''")
        revisions = [p if isinstance(p, Revision) else Revision(str(i), p[0], p[1], "") for i, p in enumerate(pairs)]
        if empty := [i for i, r in enumerate(revisions) if not r.before.strip() and not r.after.strip()]:
            raise InputError(f"pairs {empty[:3]} have two empty sides; nothing was revised")
        ids = encode(revisions, self.tokenizer, self.labels, self.form, self.max_length)
        order, predictions = sorted(range(len(ids)), key=lambda i: len(ids[i])), {}  # by length: little padding
        for start in range(0, len(order), batch_size):
            positions = order[start : start + batch_size]
            batch = self.tokenizer.pad({"input_ids": [ids[i] for i in positions]}, return_tensors="pt")
            with torch.inference_mode():
                rows = self.model(**batch.to(self.model.device)).logits.float().softmax(-1).tolist()
            for position, row in zip(positions, rows, strict=True):
                by_label = dict(zip(self.labels, row, strict=True))
                predictions[position] = Prediction(max(by_label, key=by_label.get), by_label)
        return [predictions[i] for i in range(len(ids))]


def read_pairs(file: str) -> list[tuple[str, str]]:
    """Return the before and after texts in a table (CSV, JSON Lines, xlsx), or on standard input (`-`: JSON Lines)."""
    if file != "-":
        rows = read_rows(Path(file))
        require(rows, ("before", "after"))
        return [(row.text("before"), row.text("after")) for row in rows]
    pairs = []
    for number, line in ((n, line) for n, line in enumerate(sys.stdin, 1) if line.strip()):
        try:
            row = json.loads(line)
            pairs.append((str(row["before"] or ""), str(row["after"] or "")))
        except (ValueError, KeyError, TypeError):
            raise InputError(f'line {number} is not an object like {{"before": "...", "after": "..."}}') from None
    return pairs

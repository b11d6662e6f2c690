"""A trained classifier for use: load a saved run, give it pairs, get intentions with probabilities."""

import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from irtuning.corpora.base import Revision
from irtuning.corpora.reading import read_rows, require
from irtuning.errors import InputError
from irtuning.models import LOAD_ERRORS, load_classifier, load_tokenizer, resolve
from irtuning.prompts import encode
from irtuning.records import read_record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """The likeliest intention and every label's probability, in label order."""

    intention: str
    probabilities: dict[str, float]


class RevisionClassifier:
    """Predicts revision intentions with the weights of a saved run.

    >>> classifier = RevisionClassifier.load("runs/ir")  # doctest: +SKIP
    >>> classifier.predict([("He go home.", "He goes home.")])[0].intention  # doctest: +SKIP
    'fluency'
    """

    def __init__(self, model, tokenizer, labels: list[str], form: str, max_length: int):
        self.model, self.tokenizer, self.labels = model.eval(), tokenizer, labels
        self.form, self.max_length = form, max_length

    @classmethod
    def load(cls, folder: str | Path) -> "RevisionClassifier":
        """Load the run in `folder`, on the GPU where there is one.

        Raises:
            InputError: no whole record there, weights missing or damaged, or its base model cannot be loaded.
        """
        import torch

        folder, record = Path(folder), read_record(Path(folder))
        config, labels = record["run"]["config"], record["run"]["labels"]
        source = resolve(config["model"], config["form"])
        try:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", trust_remote_code=False)
            model = _load_weights(folder, source, labels, tokenizer, config)
        except LOAD_ERRORS as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the weights in {folder} cannot be loaded: {error}; train the run again") from None
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(model.to(device), tokenizer, labels, config["form"], config["max_length"])

    def predict(self, pairs: Iterable[tuple[str, str] | Revision], batch_size: int = 64) -> list[Prediction]:
        """Predict the intention of each (before, after) pair, in order; "" is a side that does not exist.

        Raises:
            InputError: both sides of a pair are empty.
        """
        revisions = [p if isinstance(p, Revision) else Revision(str(i), p[0], p[1], "") for i, p in enumerate(pairs)]
        empty = [i for i, r in enumerate(revisions) if not r.before.strip() and not r.after.strip()]
        if empty:
            raise InputError(f"pairs {empty[:3]} have two empty sides; nothing was revised")
        ids = encode(revisions, self.tokenizer, self.labels, self.form, self.max_length)
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # like lengths together: little padding
        found: dict[int, Prediction] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            for i, row in zip(batch, self._probabilities([ids[i] for i in batch]), strict=True):
                found[i] = Prediction(self.labels[row.index(max(row))], dict(zip(self.labels, row, strict=True)))
        return [found[i] for i in range(len(ids))]

    def _probabilities(self, ids: list[list[int]]) -> list[list[float]]:
        import torch

        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.model.device)
        with torch.inference_mode():
            return self.model(**batch).logits.float().softmax(-1).tolist()


def read_pairs(file: str) -> list[tuple[str, str]]:
    """The before and after texts of a table's rows (CSV, JSON Lines, xlsx), or `-` for JSON Lines on standard input.

    Raises:
        InputError: unreadable, or a row without the two columns; names it.
    """
    if file == "-":
        return [_pair(number, line) for number, line in enumerate(sys.stdin, 1) if line.strip()]
    rows = read_rows(Path(file))
    require(rows, ("before", "after"))
    return [(row.text("before"), row.text("after")) for row in rows]


def _pair(number: int, line: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
        return str(row["before"] or ""), str(row["after"] or "")
    except (ValueError, KeyError, TypeError):
        raise InputError(f'line {number} is not an object like {{"before": "...", "after": "..."}}') from None


def _load_weights(folder: Path, source, labels: list[str], tokenizer, config: dict):
    if (folder / "model").is_dir():
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification.from_pretrained(
            folder / "model", use_safetensors=True, trust_remote_code=False
        )
    from peft import PeftModel

    import irtuning.adapters  # noqa: F401  registers the bottleneck with peft

    if not (folder / "adapter" / "adapter_model.safetensors").exists():
        raise InputError(f"no adapter_model.safetensors in {folder}/adapter; train the run again")
    base_tokenizer = load_tokenizer(source)
    if len(base_tokenizer) != len(tokenizer):
        raise InputError(f"{folder}: its tokenizer differs from {source.name!r}'s today; train the run again")
    base = load_classifier(source, labels, tokenizer, precision=config["precision"], quantize=config["quantize"])
    return PeftModel.from_pretrained(base, folder / "adapter")

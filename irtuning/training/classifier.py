"""A trained classifier for use: load a saved run, give it pairs, get intentions with probabilities."""

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from irtuning.models.adapters import no_rename_warning
from irtuning.corpora.base import Revision
from irtuning.corpora.reading import read_rows, require
from irtuning.errors import InputError
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.models.prompts import encode
from irtuning.training.record import RECORD, read_record
from irtuning.training.saved import CURE, check_saved, tensor_shapes

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

        Of the folder only what its SHA256SUMS names is read, and no code or pickle is loaded. An adapter also needs
        its base model, which is read from where the record says: a name, a Hub id, or a path as the user typed it.

        Raises:
            InputError: no whole record there, a file missing, damaged or not of the run, a setting that leads outside
                of the folder, or its base model cannot be loaded.
        """
        import torch

        folder, record = Path(folder), read_record(Path(folder))
        check_saved(folder)
        config, labels = _settings(record["run"], folder / RECORD)
        source = resolve(config["model"], config["form"])
        from transformers import AutoTokenizer

        with _reading(folder / "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", trust_remote_code=False)
        kind = "model" if (folder / "model").is_dir() else "adapter"
        with _reading(folder / kind):
            model = _load_weights(folder / kind, source, labels, tokenizer, config)
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


def _settings(run: dict, path: Path) -> tuple[dict, list[str]]:
    """The configuration and the labels of a record, those that are used here being of their kind."""
    config, labels = run["config"], run.get("labels")
    kinds = {"model": str, "form": str, "max_length": int, "precision": str, "quantize": str}
    wrong = [name for name, kind in kinds.items() if type(config.get(name)) is not kind]
    if not isinstance(labels, list) or len(labels) < 2 or not all(isinstance(label, str) for label in labels):
        wrong.append("labels")
    if wrong:
        raise InputError(f"{path} is damaged: {', '.join(wrong)} missing or of another kind; {CURE}")
    return config, labels


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Any error of the libraries that read a folder as one that names it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever the libraries' parsers raise
        raise InputError(f"{place} cannot be loaded: {error}; {CURE}") from error


def _load_weights(folder: Path, source, labels: list[str], tokenizer, config: dict):
    stored: dict[str, list[int]] = {}
    for file in folder.glob("*.safetensors"):
        stored |= tensor_shapes(file)
    if folder.name == "model":
        model, different = _load_whole(folder, labels)
    else:
        model, expected = _load_adapter(folder, source, labels, tokenizer, config)
        different = [name for name in stored.keys() | expected if stored.get(name) != expected.get(name)]
    if different:
        problem = f"{min(different)} is missing, unknown or of another shape"
        raise InputError(f"the weights in {folder} are not the run's: {problem}; {CURE}")
    return model


def _load_whole(folder: Path, labels: list[str]):
    """The model, and the names of the weights that it lacks, does not know or has in another shape."""
    from transformers import AutoModelForSequenceClassification

    model, found = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(labels), use_safetensors=True, trust_remote_code=False,
        output_loading_info=True, ignore_mismatched_sizes=True,
    )  # fmt: skip
    mismatched = [name for name, *_ in found["mismatched_keys"]]
    return model, [*found["missing_keys"], *found["unexpected_keys"], *mismatched]


def _load_adapter(folder: Path, source, labels: list[str], tokenizer, config: dict):
    """The base model with its adapter, and the shapes of the weights that the adapter should have."""
    from peft import PeftModel, get_peft_model_state_dict

    import irtuning.models.adapters  # noqa: F401  registers the bottleneck with peft

    base_tokenizer = load_tokenizer(source)
    if len(base_tokenizer) != len(tokenizer):
        raise InputError(f"{folder}: its tokenizer differs from {source.name!r}'s today; train the run again")
    base = load_classifier(source, labels, tokenizer, precision=config["precision"], quantize=config["quantize"])
    with no_rename_warning():
        model = PeftModel.from_pretrained(base, folder)
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    return model, {name: list(tensor.shape) for name, tensor in expected.items()}

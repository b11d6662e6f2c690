"""One training run, from its configuration to its record. An interrupted run is resumed, a finished one is read."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.utils import wait_for_everyone
from safetensors import SafetensorError
from transformers import TrainerCallback
from transformers.integrations import get_available_reporting_integrations
from transformers.utils.logging import disable_progress_bar

from irtuning.corpora.base import SPLITS, Corpus
from irtuning.errors import InputError, TrainingStopped, unknown
from irtuning.method.layers import find_layers
from irtuning.method.processes import is_first, refuse_sharding, world_size
from irtuning.method.registry import facts
from irtuning.training.build import build, examples_each
from irtuning.training.config import RunConfig
from irtuning.training.metrics import score
from irtuning.training.prepare import Prepared, finished_run, prepare
from irtuning.training.record import SCHEMA, has_record, new_folder, provenance, write_record
from irtuning.training.resume import ResumableTrainer, unfinished

CURVE = ("loss", "macro_f1", "auprc", "accuracy", "macro_precision", "macro_recall")


@dataclass
class Run:
    """A finished run: its record and its folder (None if it was not saved). A notebook displays its curve."""
    record: dict = field(repr=False)
    folder: Path | None = None
    config = property(lambda self: self.record["run"]["config"], doc="The completed configuration.")
    scores = property(lambda self: self.record["scores"], doc="The scores by split.")
    layers = property(lambda self: [step["layers"] for step in self.record["train"]["steps"]], doc="Layers by step.")

    def _repr_png_(self) -> bytes:
        from irtuning.analysis.figures.runs import convergence
        from irtuning.analysis.figures.style import to_image
        return to_image(convergence([self.record], smooth=1))


def train(
    config: RunConfig | Prepared | None = None, *, corpus: Corpus | str | None = None,
    data_dir: str | Path | None = None, output: str | Path | None = None, save_every: int | None = None,
    report_to: Sequence[str] = (), progress: bool = True, callbacks: Sequence[TrainerCallback] = (),
    **settings: object) -> Run:  # fmt: skip
    """Fine-tune a classifier of revision intentions and return its run.

    Args:
        config: a configuration, or the result of `prepare`. Without it, give the settings as keywords:
            `train(corpus="synthetic", method="ir")`. `method` may be a name, a subclass of `Strategy` or an instance.
        corpus, data_dir: a loaded corpus, or without `config` also the name of one; and the folder of its files.
        output: folder for record, adapter with head, and tokenizer, made when the run is finished. If it already holds
            the same run, that is read. An interrupted run is resumed exactly.
        save_every: steps between two checkpoints of a run with an `output`. None: at each evaluation. 0: never.
        report_to: names of trackers that the Trainer knows. They get losses, scores, the number of layers that learn
            and the score of every layer. `tensorboard` writes to TENSORBOARD_LOGGING_DIR or beside `output`.
        progress, callbacks: whether to show a progress bar; further callbacks of the Trainer, called last.

    Raises:
        InputError: a setting cannot work. It is raised before training starts, and nothing is overwritten.
        TrainingStopped: the gradient was not finite for several steps, or the GPU is out of memory.
        SystemExit: with code 143, when SIGTERM came and a checkpoint was saved.
        KeyboardInterrupt: Ctrl-C came and a checkpoint was saved; the same call resumes from it.
    """
    if (save_every or 0) < 0:
        raise InputError(f"save_every is {save_every}; give a number of steps, or 0 for no checkpoints")
    prepared = config if isinstance(config, Prepared) else prepare(config, corpus=corpus, data_dir=data_dir, **settings)
    refuse_sharding()
    examples_each(prepared.config.batch_size, prepared.config.accumulation)
    folder, every = output and Path(output), prepared.config.eval_every if save_every is None else save_every
    if folder and has_record(folder):
        return Run(finished_run(folder, prepared), folder)
    prepared.check_strategy()
    trackers = get_available_reporting_integrations()
    if wrong := [name for name in report_to if name not in trackers]:
        raise unknown("tracker (or it is not installed)", wrong[0], trackers)
    options = {"callbacks": callbacks, "report_to": report_to, "progress": progress and is_first()}
    options |= {"output": folder, "save_every": every}
    record = _fit_and_save(prepared, options) if folder and is_first() else _fit(prepared, options)[0]
    wait_for_everyone()
    return Run(record, folder)


def _fit(prepared: Prepared, options: dict) -> tuple[dict, ResumableTrainer]:
    started = time.perf_counter()
    trainer, splits = build(prepared, **options)
    begun = time.perf_counter()
    try:
        trainer.train_or_resume()
    except torch.OutOfMemoryError:
        raise TrainingStopped(_out_of_memory(prepared)) from None
    except TrainingStopped as error:
        ids = [splits["train"].revisions[i].id for i in trainer.step_examples(trainer.state.global_step)]
        newest = trainer.checkpoints and trainer.checkpoints.newest()
        kept = f"; the last checkpoint is {newest}" if newest else ""
        raise TrainingStopped(f"{error}: {', '.join(ids)}{kept}") from None
    seconds = {"setup": begun - started, "train": trainer.progress.earlier + time.perf_counter() - begun}
    probabilities = {"validation": trainer.probabilities[splits["validation"].order]}  # after the last step
    if test := splits.get("test"):
        trainer.predict(test.examples)
        probabilities["test"] = trainer.probabilities[test.order]
    seconds["total"] = trainer.progress.earlier + time.perf_counter() - started
    return _record(prepared, trainer, splits, probabilities, seconds), trainer


def _fit_and_save(prepared: Prepared, options: dict) -> dict:
    """Train in a folder for unfinished work, move the result to the run's folder, and return the record."""
    folder = options["output"]
    with unfinished(folder) as work:
        if has_record(folder):  # another process has just finished it
            return finished_run(folder, prepared)
        with new_folder(folder, within=work) as temporary:
            record, trainer = _fit(prepared, options)
            model, options = trainer.model, {}
            if prepared.strategy.scope == "adapters":
                options, base = {"save_embedding_layers": False}, model.get_base_model()
                # save the name that the user gave, since a path on this machine is of no use elsewhere
                base.name_or_path = base.config._name_or_path = prepared.config.model
                for adapter in model.peft_config.values():
                    adapter.base_model_name_or_path = prepared.config.model
            disable_progress_bar()  # transformers shows one for every file
            try:
                model.save_pretrained(temporary / ("adapter" if options else "model"), **options)
                trainer.data_collator.tokenizer.save_pretrained(temporary / "tokenizer")
            except (OSError, SafetensorError) as error:
                raise InputError(f"the weights cannot be written: {error}; free some space and train again") from None
            write_record(temporary, record)
    return record


def _out_of_memory(prepared: Prepared) -> str:
    """Return the message that the GPU is too small, with the memory that is predicted if it can be."""
    text = f"the GPU of {torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB is out of memory"
    with suppress(Exception):  # an error of the prediction must not hide the cause
        text += f": this run needs about {prepared.predicted_memory().peak_bytes / 2**30:.1f} GiB"
    return f"{text}; raise accumulation, set checkpointing=true, or ask `irtuning memory --gpu` what fits"


def _record(prepared: Prepared, trainer: ResumableTrainer, splits, probabilities, seconds: dict[str, float]) -> dict:
    """Return the record of a run. `probabilities` holds the class probabilities of each split, shape (n, K)."""
    corpus, labels, layers = prepared.corpus, prepared.corpus.labels, trainer.layerwise.layers
    scores, predictions = {}, {}
    for split, rows in probabilities.items():
        revisions = splits[split].revisions
        scores[split] = score([labels.index(r.intention) for r in revisions], rows, labels)
        predictions[split] = [  # intervals are computed over groups
            {"id": r.id, "group": r.group, "intention": r.intention, "predicted": labels[int(row.argmax())],
             "probabilities": [round(float(p), 6) for p in row]} for r, row in zip(revisions, rows, strict=True)]
    run = {"config": prepared.config.to_dict(), "strategy": facts(prepared.config.method),
        "corpus_checksum": corpus.checksum, "synthetic_corpus": corpus.synthetic,
        "random_weights": prepared.source.random_weights, "labels": list(labels),
        "split_sizes": {s: len(corpus.split(s)) for s in SPLITS} | {"train": len(splits["train"].revisions)},
        "parameters": sum(p.numel() for p in trainer.model.parameters()), "depth": len(find_layers(trainer.model)),
        "candidate_layers": list(dict.fromkeys(layers.indices)),
        "layer_parameters": [sum(p.numel() for p in v) for v in layers.parameters]}
    run |= {"candidate_blocks": layers.blocks} if layers.blocks else {}  # whose sizes layer_parameters then has
    run |= {"model_title": title} if (title := prepared.source.title) != prepared.config.model else {}
    # a published split may share documents between its parts
    run |= {"shared_groups": corpus.shared_groups} if corpus.shared_groups else {}
    history, evaluations = trainer.layerwise.history, [r for r in trainer.state.log_history if "eval_loss" in r]
    steps = {"steps": [row | {"loss": loss} for row, loss in zip(history, trainer.step_losses(), strict=True)],
        "validation": [{"step": row["step"]} | {n: row[f"eval_{n}"] for n in CURVE} for row in evaluations],
        "skipped_steps": sum(row["gradient_norm"] is None for row in history)}  # fmt: skip
    meta = {"status": "complete", "starts": trainer.progress.starts, "processes": world_size(), "seconds": seconds}
    meta = provenance(prepared.device) | meta | {"step_seconds": trainer.progress.seconds}
    scores["test_scored"] = int(prepared.config.score_test)
    record = {"schema": SCHEMA, "run": run, "train": steps, "scores": scores, "predictions": predictions, "meta": meta}
    return json.loads(json.dumps(record), parse_constant=lambda number: None)  # JSON cannot hold NaN and infinity

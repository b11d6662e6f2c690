"""One run from its configuration to its record: read if it is finished, resumed if it was interrupted."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback
from transformers.integrations import get_available_reporting_integrations
from transformers.utils.logging import disable_progress_bar

from irtuning.corpora.base import SPLITS, Corpus
from irtuning.errors import InputError, TrainingStopped, differences, unknown
from irtuning.memory.fit import setting_that_fits
from irtuning.method.layers import find_layers
from irtuning.method.processes import is_first, refuse_sharding, wait_for_all, world_size
from irtuning.method.registry import facts
from irtuning.training.build import build, examples_each
from irtuning.training.config import RunConfig
from irtuning.training.metrics import score
from irtuning.training.prepare import Prepared, prepare
from irtuning.training.record import SCHEMA, finite, has_record, new_folder, provenance, read_record, write_record
from irtuning.training.resume import ResumableTrainer, unfinished

CURVE = ("loss", "macro_f1", "auprc", "accuracy", "macro_precision", "macro_recall")


@dataclass
class Run:
    """A finished run: its record and its folder, None if it was not saved. A notebook shows its curve."""
    record: dict = field(repr=False)
    folder: Path | None = None
    config = property(lambda self: self.record["run"]["config"], doc="The completed configuration.")
    scores = property(lambda self: self.record["scores"], doc="The scores by split.")
    layers = property(lambda self: [step["layers"] for step in self.record["train"]["steps"]], doc="Layers by step.")

    def _repr_png_(self) -> bytes:
        from irtuning.analysis.figures.runs import run_curve
        from irtuning.analysis.figures.style import to_image
        return to_image(run_curve(self.record))


def train(
    config: RunConfig | Prepared | None = None, *, corpus: Corpus | str | None = None,
    data_dir: str | Path | None = None, output: str | Path | None = None, save_every: int | None = None,
    report_to: Sequence[str] = (), progress: bool = True, callbacks: Sequence[TrainerCallback] = (),
    **settings: object) -> Run:  # fmt: skip
    """Fine-tune a classifier of revision intentions and return its run.

    Args:
        config: the configuration, or what `prepare` made of it; or give its fields as keywords, in `settings`:
            `train(corpus="synthetic", method="ir")`. `method` may be a name, a subclass of `Strategy` or an instance.
        corpus, data_dir: a loaded corpus, the one that `config` names; or without `config` a name. Folder of its files.
        output: folder for record, adapter with head, and tokenizer; it appears when the run is finished. A folder that
            holds this very run is read, and a run that was interrupted resumes exactly.
        save_every: steps between two checkpoints of a run with an `output`. None: at each evaluation. 0: never.
        report_to: trackers by the Trainer's names. They receive losses, scores, the number of layers that learn and
            every layer's score. `tensorboard` writes to TENSORBOARD_LOGGING_DIR or beside `output`.
        progress, callbacks: whether to show a progress bar; further callbacks of the Trainer, called last.

    Raises:
        InputError: something cannot work. It is raised before training starts, and nothing is overwritten.
        TrainingStopped: the gradient was not finite for several steps, or the GPU is out of memory.
        SystemExit: 143, after SIGTERM and a checkpoint.
        KeyboardInterrupt: after Ctrl-C and a checkpoint. The same call goes on from there.
    """
    if (save_every or 0) < 0:
        raise InputError(f"save_every is {save_every}; give a number of steps, or 0 for no checkpoints")
    prepared = config if isinstance(config, Prepared) else prepare(config, corpus=corpus, data_dir=data_dir, **settings)
    refuse_sharding()
    examples_each(prepared.config.batch_size, prepared.config.accumulation)
    folder, every = output and Path(output), prepared.config.eval_every if save_every is None else save_every
    if folder and has_record(folder):
        return Run(finished_run(folder, prepared), folder)
    trackers = get_available_reporting_integrations()
    if wrong := [name for name in report_to if name not in trackers]:
        raise unknown("tracker (or it is not installed)", wrong[0], trackers)
    options = {"callbacks": callbacks, "report_to": report_to, "progress": progress and is_first()}
    options |= {"output": folder, "save_every": every}
    record = _fit_and_save(prepared, options) if folder and is_first() else _fit(prepared, options)[0]
    wait_for_all()
    return Run(record, folder)


def finished_run(folder: Path, prepared: Prepared) -> dict:
    """Return the record in a folder. Raise InputError, with the differences, if it is not that of the prepared run."""
    record = read_record(folder)
    different = differences(record["run"]["config"], prepared.config.to_dict())
    if record["run"]["corpus_checksum"] != prepared.corpus.checksum:
        different.append("corpus_checksum (the texts changed)")
    if different:
        raise InputError(f"{folder} holds another run ({'; '.join(different)}); give another folder")
    return record


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
        kept = f"; what was learned before is in {newest}" if newest else ""
        raise TrainingStopped(f"{error}: {', '.join(ids)}{kept}") from None
    seconds = {"setup": begun - started, "train": trainer.progress.earlier + time.perf_counter() - begun}
    probabilities = {"validation": trainer.probabilities[splits["validation"].order]}  # after the last step
    if test := splits.get("test"):
        trainer.predict(test.examples)
        probabilities["test"] = trainer.probabilities[test.order]
    seconds["total"] = trainer.progress.earlier + time.perf_counter() - started
    return _record(prepared, trainer, splits, probabilities, seconds), trainer


def _fit_and_save(prepared: Prepared, options: dict) -> dict:
    """Train in the folder of unfinished work, which becomes the run's folder at the end. Return the record."""
    folder = options["output"]
    with unfinished(folder) as work:
        if has_record(folder):  # another process has just finished it
            return finished_run(folder, prepared)
        with new_folder(folder, within=work) as temporary:
            record, trainer = _fit(prepared, options)
            model, options = trainer.model, {}
            if prepared.strategy.scope == "adapters":
                options, base = {"save_embedding_layers": False}, model.get_base_model()
                # saved as the user named it: its path on this machine is of no use elsewhere
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
    """Return a message about a GPU that is too small, with the settings to change if they can be predicted."""
    gpu_bytes = torch.cuda.get_device_properties(0).total_memory
    text = f"the GPU of {gpu_bytes / 2**30:.1f} GiB is out of memory"
    try:
        now, predict = prepared.config, prepared.predicted_memory
        needed, sizes = predict().peak_bytes / 2**30, (now.accumulation, now.batch_size, now.checkpointing, gpu_bytes)
        change = setting_that_fits(lambda n, again: predict(accumulation=n, checkpointing=again).peak_bytes, *sizes)
    except Exception as error:  # whatever a model or a user's strategy raises must not hide what happened
        return f"{text}; give more accumulation, or checkpointing=true (memory could not be predicted: {error})"
    cure = f"set {change}" if change else "no split fits, so use a shorter max_length, a smaller model or a larger GPU"
    return f"{text}: predicted for this run are {needed:.1f} GiB, without other processes on it; {cure}"


def _record(prepared: Prepared, trainer: ResumableTrainer, splits, probabilities, seconds: dict[str, float]) -> dict:
    """Return the record of a run. The class probabilities, shape (n, K), are by split."""
    corpus, labels, layers = prepared.corpus, prepared.corpus.labels, trainer.layerwise.layers
    scores, predictions = {}, {}
    for split, rows in probabilities.items():
        revisions = splits[split].revisions
        scores[split] = score([labels.index(r.intention) for r in revisions], rows, labels)
        predictions[split] = [
            {"id": r.id, "group": r.group, "intention": r.intention}  # intervals are computed over groups
            | {"predicted": labels[int(row.argmax())], "probabilities": [round(float(p), 6) for p in row]}
            for r, row in zip(revisions, rows, strict=True)]  # fmt: skip
    run = {"config": prepared.config.to_dict(), "strategy": facts(prepared.config.method),
        "corpus_checksum": corpus.checksum, "synthetic_corpus": corpus.synthetic,
        "random_weights": prepared.source.random_weights, "labels": list(labels),
        "split_sizes": {s: len(corpus.split(s)) for s in SPLITS} | {"train": len(splits["train"].revisions)},
        "parameters": sum(p.numel() for p in trainer.model.parameters()), "depth": len(find_layers(trainer.model)),
        "candidate_layers": layers.indices, "layer_parameters": [sum(p.numel() for p in v) for v in layers.parameters],
    }  # fmt: skip
    history, evaluations = trainer.layerwise.history, [r for r in trainer.state.log_history if "eval_loss" in r]
    steps = {
        "steps": [finite(row | {"loss": loss}) for row, loss in zip(history, trainer.step_losses(), strict=True)],
        "validation": [finite({"step": row["step"]} | {n: row[f"eval_{n}"] for n in CURVE}) for row in evaluations],
        "skipped_steps": sum(row["skipped"] for row in history)}  # fmt: skip
    meta = {"status": "complete", "starts": trainer.progress.starts, "processes": world_size(), "seconds": seconds}
    meta = provenance(prepared.device) | meta | {"step_seconds": trainer.progress.seconds}
    scores["test_scored"] = int(prepared.config.score_test)
    return {"schema": SCHEMA, "run": run, "train": steps, "scores": scores, "predictions": predictions, "meta": meta}

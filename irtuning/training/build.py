"""The work of one run: prompts, model, training, scores."""

import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import DataCollatorWithPadding, PrinterCallback, TrainerCallback, TrainingArguments, set_seed
from transformers.utils.logging import disable_progress_bar

from irtuning.models.adapters import adapted_classifier
from irtuning.method.callback import LayerwiseTuning
from irtuning.training.checkpoints import KEPT, Checkpoints
from irtuning.training.config import RunConfig
from irtuning.corpora.base import SPLITS, Corpus, Revision
from irtuning.training.curve import ValidationCurve
from irtuning.errors import InputError, TrainingStopped
from irtuning.memory.predict import ADAPTER_SETTINGS, MemoryPrediction, predict_memory
from irtuning.method.layers import find_layers
from irtuning.training.metrics import balanced_weights, score, softmax
from irtuning.models.loading import ModelSource, context_length, load_classifier, load_tokenizer
from irtuning.models.prompts import encode
from irtuning.training.provenance import provenance, versions
from irtuning.method.processes import examples_each, world_size
from irtuning.training.record import SCHEMA, finite
from irtuning.training.resume import ResumableTrainer, Saving
from irtuning.training.speed import accelerate
from irtuning.method.strategies import Strategy


class Job:
    """Everything one run needs, made in order from the seed.

    Args:
        place: where its checkpoints go, None for none.
        save_every: steps between two, 0 for none.
        report_to: the Trainer's names of trackers.
    """

    def __init__(
        self,
        config: RunConfig,
        corpus: Corpus,
        strategy: Strategy,
        source: ModelSource,
        progress: bool,
        callbacks: Sequence[TrainerCallback] = (),
        place: Path | None = None,
        save_every: int = 0,
        report_to: Sequence[str] = (),
    ):
        self.config, self.corpus, self.strategy, self.source, self.place = config, corpus, strategy, source, place
        self.started = time.perf_counter()
        self.on_gpu = torch.cuda.is_available() and config.device == "auto"
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        set_seed(config.seed)  # before the model is made: its head and adapters are random
        self.scored = ("validation", "test") if config.score_test else ("validation",)
        self.tokenizer = load_tokenizer(source)
        self.model = self._make_model()
        self.train_part = corpus.train_part(config.train_share, config.seed)
        self.data = {"train": self._encode(self.train_part)}
        self.data |= {split: self._encode(corpus.split(split)) for split in self.scored}
        self.order = {s: sorted(range(len(d)), key=lambda i, d=d: len(d[i]["input_ids"])) for s, d in self.data.items()}
        self.callback, self.curve = LayerwiseTuning(strategy, config.seed), ValidationCurve(config.checkpoint)
        self.saving = Saving(save_every)
        identity = config.to_dict() | {"corpus_checksum": corpus.checksum, "processes": world_size()} | versions()
        self.checkpoints = Checkpoints(place, identity) if place and save_every else None
        self.trainer = self._make_trainer(progress, callbacks, report_to)

    def check_space(self) -> None:
        """Raise InputError if what the run will save has no room: its weights; with two moments in each checkpoint."""
        learning = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        needed = learning * (1 + 3 * (KEPT + 1) * bool(self.checkpoints)) + 2**24
        if (free := shutil.disk_usage(self.place).free) < needed:
            raise InputError(
                f"{free:,} bytes free for the run's folder, about {needed:,} needed; free some space"
                + (", or set save_every to 0" if self.checkpoints else "")
            )

    def work(self) -> dict:
        """Train, score, and return the record."""
        begun = time.perf_counter()
        self._train()
        trained = time.perf_counter()
        probabilities = {split: self._predict(split) for split in self.scored}
        gold = {s: [self.corpus.labels.index(r.intention) for r in self.corpus.split(s)] for s in self.scored}
        earlier = self.saving.earlier
        seconds = {"setup": begun - self.started, "train": earlier + trained - begun}
        seconds["total"] = earlier + time.perf_counter() - self.started
        meta = {
            "status": "complete",
            "starts": self.saving.starts,
            "processes": world_size(),
            "seconds": seconds,
            "step_seconds": self.curve.seconds,
        }
        return {
            "schema": SCHEMA,
            "run": {
                "config": self.config.to_dict(),
                "corpus_checksum": self.corpus.checksum,
                "synthetic_corpus": self.corpus.synthetic,
                "random_weights": self.source.random_weights,
                "labels": list(self.corpus.labels),
                "split_sizes": {s: len(self.corpus.split(s)) for s in SPLITS} | {"train": len(self.train_part)},
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "depth": len(find_layers(self.model)),
                "candidate_layers": self.callback.layers.indices,
                "layer_parameters": [sum(p.numel() for p in layer) for layer in self.callback.layers.parameters],
            },
            "train": self._train_block(),
            "scores": {s: score(gold[s], probabilities[s], self.corpus.labels) for s in self.scored}
            | {"test_scored": int(self.config.score_test)},
            "predictions": {s: self._prediction_rows(s, probabilities[s]) for s in self.scored},
            "meta": provenance(self.config.device) | meta,
        }

    def save(self, folder: Path) -> None:
        """Adapter with head (or the whole model), and tokenizer, as safetensors."""
        kind = "model" if self.strategy.scope == "parameters" else "adapter"
        disable_progress_bar()  # transformers': one for every file, however small
        try:
            if kind == "adapter":
                base = self.model.get_base_model()  # named as typed: where it lies here is nobody's business
                base.name_or_path = base.config._name_or_path = self.config.model
                for adapter in self.model.peft_config.values():
                    adapter.base_model_name_or_path = self.config.model
                self.model.save_pretrained(folder / kind, save_embedding_layers=False)
            else:
                self.model.save_pretrained(folder / kind)
            self.tokenizer.save_pretrained(folder / "tokenizer")
        except (OSError, SafetensorError) as error:
            raise InputError(f"the weights cannot be written: {error}; free some space and train again") from None

    def _train(self) -> None:
        try:
            self.trainer.go_on()
        except torch.OutOfMemoryError:
            raise TrainingStopped(self._no_room()) from None
        except TrainingStopped as error:
            ids = [self.train_part[i].id for i in self.trainer.step_examples(self.trainer.state.global_step)]
            kept = self.checkpoints.newest() if self.checkpoints else None
            where = f"; what was learned before is in {kept}" if kept else ""
            raise TrainingStopped(f"{error}: {', '.join(ids)}{where}") from None

    def _no_room(self) -> str:
        """What happened on a GPU that is too small, and what to change."""
        from irtuning.memory.fit import setting_that_fits

        def predict(accumulation: int, checkpointing: bool) -> int:
            return predict_run(replace(self.config, accumulation=accumulation, checkpointing=checkpointing)).peak_bytes

        config = self.config
        room = torch.cuda.get_device_properties(0).total_memory
        text = f"the GPU of {room / 2**30:.1f} GiB is out of memory"
        try:
            needed = predict_run(config).peak_bytes / 2**30
            cure = setting_that_fits(predict, config.accumulation, config.batch_size, config.checkpointing, room)
        except InputError as error:  # a model or setting whose memory cannot be predicted
            return f"{text}; give more accumulation, or checkpointing=true ({error})"
        instead = f"set {cure}" if cure else "no split of the batch fits: a shorter max_length, a smaller model or a larger card"
        return f"{text}: predicted for this run are {needed:.1f} GiB, other processes on it not counted; {instead}"

    def _make_model(self) -> torch.nn.Module:
        config, adapted = self.config, self.strategy.scope == "adapters"
        if not adapted and config.quantize != "none":
            raise InputError(f"method {config.method!r} tunes all weights, which {config.quantize} cannot hold")
        model = load_classifier(
            self.source, self.corpus.labels, self.tokenizer, precision=config.precision, quantize=config.quantize
        )
        limit = context_length(model, self.tokenizer)
        if limit and config.max_length > limit:
            raise InputError(f"max_length {config.max_length} is beyond {config.model}'s context of {limit} tokens")
        model.config.use_cache = False
        settings = {name: getattr(config, name) for name in ADAPTER_SETTINGS}
        model = adapted_classifier(
            model, config.adapter if adapted else None, checkpointing=config.checkpointing,
            freeze_head=config.head == "frozen", **settings,
        )  # fmt: skip
        accelerate(model, config.speed or (), config.activation_budget)
        return model

    def _make_trainer(
        self, progress: bool, callbacks: Sequence[TrainerCallback], report_to: Sequence[str]
    ) -> ResumableTrainer:
        config = self.config
        self.scratch = tempfile.TemporaryDirectory(prefix="irtuning-")  # the Trainer wants one, though it stay empty
        arguments = TrainingArguments(
            output_dir=str(self.checkpoints.new) if self.checkpoints else self.scratch.name,
            max_steps=config.max_steps,
            per_device_train_batch_size=examples_each(config.batch_size, config.accumulation),
            per_device_eval_batch_size=64,
            gradient_accumulation_steps=config.accumulation,
            learning_rate=config.learning_rate,
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            max_grad_norm=config.clip,
            bf16=config.precision == "bf16",
            use_cpu=not self.on_gpu,
            ddp_backend="gloo" if world_size() > 1 and not self.on_gpu else None,
            ddp_find_unused_parameters=True,  # the layers that are frozen at this step
            eval_strategy="steps",
            eval_steps=config.eval_every,
            save_strategy="no",
            logging_strategy="steps" if report_to else "no",
            logging_steps=1,
            logging_nan_inf_filter=False,  # it would wait for the device at every micro-batch
            report_to=list(report_to) or "none",
            run_name=f"{config.method} {config.corpus} seed {config.seed}",
            seed=config.seed,
            disable_tqdm=not progress,
            dataloader_pin_memory=self.on_gpu,
            label_names=["labels"],
        )
        arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one GPU: the Trainer would spread the batch over all
        eights = 8 if "compile" in (config.speed or ()) else None  # lengths attention wants; by chance would compile anew
        trainer = ResumableTrainer(
            self.model,
            arguments,
            train_dataset=self.data["train"],
            eval_dataset=self._by_length("validation"),
            data_collator=DataCollatorWithPadding(self.tokenizer, pad_to_multiple_of=eights),
            compute_metrics=self._metrics,
            callbacks=[
                self.curve,
                self.callback,
                self.saving,
                *callbacks,
            ],  # the curve's clock starts before the choice
            checkpoints=self.checkpoints,
            layerwise=self.callback,
            saving=self.saving,
            curve=self.curve,
            class_weights=self._class_weights(),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _class_weights(self) -> torch.Tensor | None:
        if self.config.class_weights == "none":
            return None
        return torch.from_numpy(balanced_weights([r.intention for r in self.train_part], self.corpus.labels)).float()

    def _encode(self, revisions: Sequence[Revision]) -> list[dict]:
        ids = encode(revisions, self.tokenizer, self.corpus.labels, self.config.form, self.config.max_length)
        labels = [self.corpus.labels.index(r.intention) for r in revisions]
        return [{"input_ids": row, "labels": label} for row, label in zip(ids, labels, strict=True)]

    def _by_length(self, split: str) -> list[dict]:
        """The examples by length, so that little is padded in scoring."""
        return [self.data[split][i] for i in self.order[split]]

    def _metrics(self, prediction) -> dict:
        self.last_probabilities = softmax(prediction.predictions)
        scores = score(prediction.label_ids, self.last_probabilities, self.corpus.labels)
        return {name: value for name, value in scores.items() if name != "per_class"}

    def _predict(self, split: str) -> np.ndarray:
        """Class probabilities in the split's own order, shape (n, K)."""
        if split == "test" or self.config.checkpoint == "best":  # else the last evaluation is what we want
            self.trainer.predict(self._by_length(split))
        probabilities = np.empty_like(self.last_probabilities)
        probabilities[self.order[split]] = self.last_probabilities
        return probabilities

    def _train_block(self) -> dict:
        """Per step: loss, learning rate, layers, the scores they were chosen from; and the validation curve."""
        losses = self.trainer.step_losses()
        steps = [finite(row | {"loss": loss}) for row, loss in zip(self.callback.history, losses, strict=True)]
        return {
            "steps": steps,
            "validation": [finite(point) for point in self.curve.points],
            "kept_step": self.curve.kept_step,
            "skipped_steps": sum(row["skipped"] for row in self.callback.history),
        }

    def _prediction_rows(self, split: str, probabilities: np.ndarray) -> list[dict]:
        return [
            {
                "id": revision.id,
                "group": revision.group,  # a writer or a paper: what an interval is taken over
                "intention": revision.intention,
                "predicted": self.corpus.labels[int(row.argmax())],
                "probabilities": [round(float(p), 6) for p in row],
            }
            for revision, row in zip(self.corpus.split(split), probabilities, strict=True)
        ]


def predict_run(config: RunConfig) -> MemoryPrediction:
    """Predict the memory of the run that a configuration describes, on a GPU.

    Raises:
        InputError: the weights are quantized, which the prediction does not know.
    """
    if config.quantize != "none":
        raise InputError(f"quantize is {config.quantize!r}: its memory cannot be predicted; use none, or measure it")
    options = {name: getattr(config, name) for name in ADAPTER_SETTINGS if getattr(config, name) is not None}
    return predict_memory(
        config.model, config.method, config.adapter, config.batch_size, config.max_length, share=config.share,
        checkpointing=config.checkpointing, accumulation=config.accumulation, precision=config.precision or "bf16",
        **options,
    )  # fmt: skip

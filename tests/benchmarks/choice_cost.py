"""What choosing layers costs: IR-Tuning against a replay of the very same layers, alternating in one process.

Run `python tests/benchmarks/choice_cost.py`; it writes reports/benchmarks/choice_cost.json.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, TrainingArguments, set_seed

from irtuning.models.adapters import add_adapter
from irtuning.method.callback import IRTuning, LayerwiseTuning
from irtuning.training.curve import ValidationCurve
from irtuning.companion.paths import REPOSITORY
from irtuning.training.provenance import provenance
from irtuning.training.record import write_text
from irtuning.method.strategies import Strategy
from irtuning.method.trainer import LayerwiseTrainer

ROUNDS, STEPS, BATCH, LENGTH = 8, 12, 16, 64


@dataclass
class Replay(Strategy):
    """The layers of a recorded run."""

    layers: tuple = ()

    def choose(self, step, scores, rng):
        return self.layers[step]


class Clocked(IRTuning):
    """IR-Tuning that also times what a fixed choice would not do: choosing, scoring, keeping scores."""

    seconds = 0.0

    def on_step_begin(self, *args, **kwargs):
        started = time.perf_counter()
        self.strategy.choose(1, [float(i) for i in range(12)], self.tuner.rng)
        self.seconds += time.perf_counter() - started
        super().on_step_begin(*args, **kwargs)

    def on_train_begin(self, *args, **kwargs):
        super().on_train_begin(*args, **kwargs)
        original = self.tuner._gradient_scores

        def clocked(*arguments):
            started = time.perf_counter()
            fresh = original(*arguments)
            self.strategy.update(self.tuner.scores, fresh)
            self.seconds += time.perf_counter() - started
            return fresh

        self.tuner._gradient_scores = clocked


def train(callback: LayerwiseTuning) -> list[float]:
    """Seconds of each step of a fresh 12-layer, 256-wide model."""
    set_seed(0)
    config = LlamaConfig(vocab_size=8192, hidden_size=256, intermediate_size=704, num_hidden_layers=12,
                         num_attention_heads=4, num_labels=5, pad_token_id=0)  # fmt: skip
    model = add_adapter(LlamaForSequenceClassification(config), "lora", r=8, alpha=16)
    rows = torch.randint(1, 8192, (BATCH * STEPS, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    data = [{"input_ids": row, "labels": i % 5} for i, row in enumerate(rows)]
    curve = ValidationCurve()
    curve.on_evaluate = lambda *args, **kwargs: None
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(scratch, max_steps=STEPS, per_device_train_batch_size=BATCH, report_to="none",
                                      save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
                                      logging_nan_inf_filter=False)  # fmt: skip
        trainer = LayerwiseTrainer(model, arguments, train_dataset=data, callbacks=[callback, curve])
        trainer.evaluate = lambda *args, **kwargs: {}
        trainer.train()
    return curve.seconds[2:]


def main() -> None:
    first = IRTuning(seed=0)
    train(first)
    layers = tuple(step["layers"] for step in first.history)
    chosen, replayed, own = [], [], []
    for _ in range(ROUNDS):
        clocked = Clocked(seed=0)
        chosen += train(clocked)
        replayed += train(LayerwiseTuning(Replay(layers=layers), seed=0))
        own.append(clocked.seconds / STEPS)
        assert tuple(step["layers"] for step in clocked.history) == layers
    step, fixed = statistics.median(chosen), statistics.median(replayed)
    result = {
        "setting": {"layers": 12, "width": 256, "batch": BATCH, "length": LENGTH, "adapter": "lora r=8"},
        "steps_each": len(chosen),
        "step_ms": {"choosing": 1e3 * step, "replay": 1e3 * fixed},
        "spread_ms": {"choosing": 1e3 * statistics.stdev(chosen), "replay": 1e3 * statistics.stdev(replayed)},
        "difference_share": step / fixed - 1,
        "choosing_and_scoring_ms": 1e3 * statistics.mean(own),
        "choosing_and_scoring_share": statistics.mean(own) / fixed,
        "meta": provenance(),
    }
    write_text(REPOSITORY / "reports" / "benchmarks" / "choice_cost.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

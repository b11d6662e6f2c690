"""Measure what choosing layers costs: IR-Tuning and a replay of the same layers take turns in one process.

Run `python reports/benchmarks/choice_cost.py`; it writes reports/benchmarks/choice_cost.json.
"""

import json
import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification, TrainerCallback, TrainingArguments, set_seed

from irtuning.companion.paths import REPOSITORY
from irtuning.method import tuner
from irtuning.training.callback import IRTuning, LayerwiseTuning
from irtuning.method.scores import gradient_score
from irtuning.method.strategies import IRTuningStrategy, Strategy
from irtuning.training.trainer import LayerwiseTrainer
from irtuning.models.adapters import add_adapter
from irtuning.training.record import provenance, write_text

ROUNDS, STEPS, BATCH, LENGTH = 8, 12, 16, 64
SPENT: list[float] = []  # seconds spent on choosing and scoring


@dataclass
class Replay(Strategy):
    """Strategy that chooses the layers of an earlier run."""

    layers: tuple = ()

    def choose(self, step, scores, rng):
        """Return the layers that the earlier run chose at this step."""
        return self.layers[step]


@dataclass
class Clocked(IRTuningStrategy):
    """IR-Tuning that records the seconds it spends on choosing layers and updating scores."""

    def choose(self, step, scores, rng):
        """Choose as IR-Tuning does, timed."""
        with clock():
            return super().choose(step, scores, rng)

    def update(self, scores, fresh):
        """Update as IR-Tuning does, timed."""
        with clock():
            return super().update(scores, fresh)


@contextmanager
def clock():
    """Append the seconds that the body takes to `SPENT`."""
    started = time.perf_counter()
    yield
    SPENT.append(time.perf_counter() - started)


def clocked_score(*args, **kwargs):
    """Return the score of a layer as `gradient_score` does, timed."""
    with clock():
        return gradient_score(*args, **kwargs)


class StepSeconds(TrainerCallback):
    """Callback that measures the seconds of each step."""

    def __init__(self):
        self.seconds, self.started = [], 0.0

    def on_step_begin(self, *args, **kwargs):
        """Start the clock."""
        self.started = time.perf_counter()

    def on_step_end(self, *args, **kwargs):
        """Record the seconds of the step."""
        self.seconds.append(time.perf_counter() - self.started)


def train(callback: LayerwiseTuning) -> list[float]:
    """Train a new model with 12 layers of width 256, and return the seconds of each step but the first two."""
    set_seed(0)
    config = LlamaConfig(vocab_size=8192, hidden_size=256, intermediate_size=704, num_hidden_layers=12,
                         num_attention_heads=4, num_labels=5, pad_token_id=0)  # fmt: skip
    model = add_adapter(LlamaForSequenceClassification(config), "lora", r=8, alpha=16)
    rows = torch.randint(1, 8192, (BATCH * STEPS, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    data = [{"input_ids": row, "labels": i % 5} for i, row in enumerate(rows)]
    clock_of_steps = StepSeconds()
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(scratch, max_steps=STEPS, per_device_train_batch_size=BATCH, report_to="none",
                                      save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
                                      logging_nan_inf_filter=False)  # fmt: skip
        trainer = LayerwiseTrainer(model, arguments, train_dataset=data, callbacks=[clock_of_steps, callback])
        trainer.train()
    return clock_of_steps.seconds[2:]


def main() -> None:
    """Measure both by turns, and write the record."""
    first = IRTuning(seed=0)
    train(first)
    layers = tuple(step["layers"] for step in first.history)
    chosen, replayed, overhead = [], [], []
    for _ in range(ROUNDS):
        clocked = LayerwiseTuning(Clocked(), seed=0)
        SPENT.clear()
        with patch.object(tuner, "gradient_score", clocked_score):
            chosen += train(clocked)
        overhead.append(sum(SPENT) / STEPS)
        replayed += train(LayerwiseTuning(Replay(layers=layers), seed=0))
        assert tuple(step["layers"] for step in clocked.history) == layers
    step, fixed = statistics.median(chosen), statistics.median(replayed)
    result = {
        "setting": {"layers": 12, "width": 256, "batch": BATCH, "length": LENGTH, "adapter": "lora r=8"},
        "steps_each": len(chosen),
        "step_ms": {"choosing": 1e3 * step, "replay": 1e3 * fixed},
        "spread_ms": {"choosing": 1e3 * statistics.stdev(chosen), "replay": 1e3 * statistics.stdev(replayed)},
        "difference_share": step / fixed - 1,
        "choosing_and_scoring_ms": 1e3 * statistics.mean(overhead),
        "choosing_and_scoring_share": statistics.mean(overhead) / fixed,
        "meta": provenance(),
    }
    write_text(REPOSITORY / "reports" / "benchmarks" / "choice_cost.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

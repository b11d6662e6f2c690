"""Will it fit? The peak memory of a training step on a GPU, predicted on a computer without one.

Everything here is *predicted*: a step is traced with fake tensors (`tracing`) and no number comes from a GPU. It is
what PyTorch allocates in eager training: the CUDA context, fragmentation and evaluation in larger batches are not in
it, nor are compiled or fused layers, which need less.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irtuning.errors import InputError, unknown
from irtuning.models.shapes import load_shape, source_of
from irtuning.method.registry import METHODS, make_strategy
from irtuning.method.strategies import Strategy

if TYPE_CHECKING:
    import pandas

    from irtuning.training.config import RunConfig

PARTS = ("weights", "adapters", "gradients", "optimizer_state", "activations", "temporary")
FIXED = "predicted; the same layers learn at every step"
DRAWN = "predicted; the most layers the method can draw, the lowest allowed among them"
OPTIMIZERS = ("fused", "foreach")


@dataclass(frozen=True)
class MemoryPrediction:
    """Predicted bytes at the highest point of a training step, by part, and what was assumed."""

    model: str
    method: str
    adapter: str | None
    batch: int
    length: int
    checkpointing: bool
    layers: int  # that learn at once, at most
    lowest_layer: int  # of them, at worst; backprop ends there
    weights: int
    adapters: int  # with the head
    gradients: int
    optimizer_state: int
    activations: int
    temporary: int
    note: str = "predicted"

    @property
    def peak_bytes(self) -> int:
        """All parts together."""
        return sum(getattr(self, part) for part in PARTS)

    def to_dict(self) -> dict:
        """As a JSON object, with the peak."""
        return dataclasses.asdict(self) | {"peak_bytes": self.peak_bytes}


def predict_memory(
    model: str = "mini",
    method: str = "ir",
    adapter: str = "lora",
    batch: int | None = None,
    length: int | None = None,
    *,
    checkpointing: bool = False,
    min_layer: int = 0,
    share: float | None = None,
    accumulation: int = 1,
    precision: str = "bf16",
    optimizer: str = "fused",
    padded: bool = True,
    labels: int = 9,
    **options: object,
) -> MemoryPrediction:
    """Predict the peak memory of training on a GPU; needs neither the GPU nor the weights.

    Args:
        model: a name, a local folder or its config.json.
        method: as for `make_strategy`; where the layers are drawn, the worst draw counts: as many as it can choose,
            the lowest allowed among them, and every layer's optimizer state, since each will have learned.
        adapter: lora, dora or bottleneck; the methods that tune the layers' own weights ignore it.
        batch, length: examples a step and tokens an example; the model's own settings where None.
        min_layer: no lower layer learns.
        share: of the layers, for methods with a budget.
        accumulation: micro-batches a step.
        precision: of the frozen weights and autocast; bf16 is the default on a GPU.
        optimizer: fused (the Trainer's) or foreach, which needs a copy of what learns.
        padded: whether some example of the batch is shorter than `length`; attention then needs a mask.
        options: rank, alpha, dropout, width, target_modules, as in a run; the model's own where absent.

    Raises:
        InputError: a model unknown offline, or a setting that cannot be.
    """
    from irtuning.memory.estimate import Setting, bytes_by_part, layers_that_learn

    own, strategy = source_of(model).settings, _strategy(method, min_layer, share)
    batch = own["batch_size"] if batch is None else batch
    length = own["max_length"] if length is None else length
    _check(batch, length, accumulation, precision, optimizer, labels, options)
    adapted = strategy.scope == "adapters"
    setting = Setting(
        model=model,
        adapted=adapted,
        adapter=adapter if adapted else "",
        options=_options(own, options) if adapted else (),
        batch=batch // accumulation,
        length=length,
        checkpointing=checkpointing,
        precision=precision,
        padded=padded,
        labels=labels,
    )
    chosen, ever = layers_that_learn(strategy, load_shape(model).num_hidden_layers)
    return MemoryPrediction(
        model=model,
        method=method,
        adapter=adapter if adapted else None,
        batch=batch,
        length=length,
        checkpointing=checkpointing,
        layers=len(chosen),
        lowest_layer=min(chosen),
        **bytes_by_part(setting, chosen, ever, accumulation, optimizer),
        note=FIXED if ever == chosen and strategy.importance is None else DRAWN,
    )


OF_A_RUN = ("rank", "alpha", "dropout", "width", "target_modules")


def predict_run(config: "RunConfig") -> MemoryPrediction:
    """The prediction for a run's configuration, on a GPU.

    Raises:
        InputError: quantized weights, whose memory is not modelled.
    """
    if config.quantize != "none":
        raise InputError(f"quantize is {config.quantize!r}: its memory cannot be predicted; use none, or measure it")
    options = {name: getattr(config, name) for name in OF_A_RUN}
    return predict_memory(
        config.model,
        config.method,
        config.adapter,
        config.batch_size,
        config.max_length,
        checkpointing=config.checkpointing,
        share=config.share,
        accumulation=config.accumulation,
        precision=config.precision or "bf16",
        **{name: value for name, value in options.items() if value is not None},
    )


def predicted_peaks(configs: Iterable["RunConfig"]) -> dict[str, float]:
    """Predicted peak in GiB of runs by "model adapter method", the highest where several share them."""
    peaks: dict[str, float] = {}
    for found in map(predict_run, configs):
        name = " ".join(filter(None, (found.model, found.adapter, found.method)))
        peaks[name] = max(peaks.get(name, 0.0), round(found.peak_bytes / 2**30, 2))
    return peaks


def memory_table(
    model: str = "mini", adapter: str = "lora", methods: Sequence[str] = tuple(METHODS), **settings
) -> "pandas.DataFrame":
    """Predictions side by side: a row per method, the columns of `MemoryPrediction.to_dict`."""
    import pandas

    return pandas.DataFrame([predict_memory(model, method, adapter, **settings).to_dict() for method in methods])


def _strategy(method: str, min_layer: int, share: float | None) -> Strategy:
    if min_layer < 0:
        raise InputError(f"min_layer is {min_layer}, give 0 or more")
    strategy = make_strategy(method)
    if share is not None:
        if "share" not in {f.name for f in dataclasses.fields(strategy)}:
            raise InputError(f"method {method!r} takes no share")
        strategy = make_strategy(method, share=share)
    strategy.min_layer = max(strategy.min_layer, min_layer)
    return strategy


def _options(own: dict, given: dict) -> tuple[tuple[str, object], ...]:
    """The adapter's settings under the names `add_adapter` has for them."""
    names = {"rank": "r", "alpha": "alpha", "dropout": "dropout", "width": "width", "target_modules": "target_modules"}
    if wrong := sorted(set(given) - set(names)):
        raise unknown("setting of a memory prediction", wrong[0], names)
    values = {theirs: given.get(ours, own.get(ours)) for ours, theirs in names.items()}
    return tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in values.items())


def _check(batch, length, accumulation, precision, optimizer, labels, options) -> None:
    least = {"batch": batch, "length": length, "accumulation": accumulation, "labels": labels}
    least |= {name: options[name] for name in ("rank", "width") if name in options}
    problems = [f"{name} is {v!r}, give 1 or more" for name, v in least.items() if not isinstance(v, int) or v < 1]
    if not problems and batch % accumulation:
        problems.append(f"batch {batch} is not a multiple of accumulation {accumulation}")
    for name, value, choices in (("precision", precision, ("bf16", "fp32")), ("optimizer", optimizer, OPTIMIZERS)):
        if value not in choices:
            problems.append(f"{name} is {value!r}, give one of {choices}")
    if problems:
        raise InputError("; ".join(problems))



"""Prediction of the peak GPU memory of a training step, and of what fits a GPU. It needs no GPU.

A step is traced with tensors that have no storage. The prediction is what PyTorch allocates in eager training. It
leaves out the CUDA context, fragmentation, and evaluation in larger batches.
"""

import bisect
import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, fields

from irtuning.errors import InputError, unknown
from irtuning.method.baselines import FixedLayers
from irtuning.method.registry import METHODS, as_strategy, method_text
from irtuning.method.strategies import Strategy
from irtuning.models.loading import load_shape, resolve
from irtuning.models.speed import ACCELERATIONS

PARTS = ("weights", "adapters", "gradients", "optimizer_state", "activations", "temporary")
FIXED = "predicted; the same layers learn at every step"
DRAWN = "predicted; the most layers the method can draw, the lowest allowed among them"
BLOCKS = "predicted upper bound; a layer counts as a whole if one block of it learns"
CHOICES = {"precision": ("bf16", "fp32"), "backward": ("exact", "skip"), "idle": ("keep", "drop", "offload"),
           "quantize": ("none", "4bit")}  # fmt: skip
CONTEXT_BYTES = 2**29  # CUDA itself takes half a GiB of a GPU's memory
SLACK = 0.95  # share of the memory that is usable despite fragmentation
ADAPTER_SETTINGS = ("rank", "alpha", "dropout", "width", "target_modules")


@dataclass(frozen=True)
class MemoryPrediction:
    """Predicted bytes of each part at the highest point of a training step, and the setting they are for."""
    model: str
    method: str
    adapter: str | None
    batch: int
    length: int
    checkpointing: bool
    layers: int  # the most layers that learn at once
    lowest_layer: int  # the lowest of them in the worst case, where backpropagation ends
    weights: int
    adapters: int  # with the classification head
    gradients: int
    optimizer_state: int
    activations: int
    temporary: int
    note: str

    @property
    def peak_bytes(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(getattr(self, part) for part in PARTS)

    def to_dict(self) -> dict:
        """Return the prediction as a JSON object, with its peak."""
        return asdict(self) | {"peak_bytes": self.peak_bytes}


def predict_memory(
    model: str = "mini", method: str | type[Strategy] | Strategy = "ir", adapter: str = "lora",
    batch: int | None = None, length: int | None = None, *, checkpointing: bool = False, min_layer: int = 0,
    share: float | None = None, accumulation: int = 1, precision: str = "bf16", padded: bool = True,
    labels: int = 9, backward: str = "exact", idle: str = "keep", speed: Collection[str] = (), quantize: str = "none",
    **options: object) -> MemoryPrediction:  # fmt: skip
    """Predict the peak memory of training on a GPU. Neither the GPU nor the weights are needed.

    If the layers of a method vary, the worst case counts: the most layers it can choose, the lowest allowed among them,
    and the optimizer state of every layer that ever learns. A setting that is None is the model's own.

    Args:
        model: a name, a local folder or its config.json.
        method: a method's text, a subclass of `Strategy` or an instance of one.
        adapter: `lora`, `dora` or `bottleneck`; ignored by the methods that tune the layers' own weights.
        batch, length, accumulation: examples in an optimizer step, tokens in an example, micro-batches in a step.
        checkpointing: whether each layer recomputes its activations in the backward pass.
        min_layer, share: the lowest layer that may learn; the share of the layers, for methods with a budget.
        precision: `bf16` or `fp32`, for the frozen weights and for autocast.
        padded: whether a batch has examples shorter than `length`, so that attention needs a mask.
        backward: `exact` or `skip`, see `irtuning.models.backward`.
        idle: `keep`, `drop` or `offload`: whether the optimizer's state of layers that do not learn is on the GPU.
        speed, quantize: accelerations, of which `float8` changes the memory; `4bit` for a base in 4 bits.
        options: rank, alpha, dropout, width and target_modules of the adapter.

    Raises:
        InputError: the model's configuration cannot be found offline, or a setting is invalid.
    """
    own, strategy = resolve(model).settings, as_strategy(method)
    name = method if isinstance(method, str) else method_text(strategy)
    if share is not None and "share" not in {field.name for field in fields(strategy)}:
        raise InputError(f"method {name!r} takes no share; leave it out")
    strategy = as_strategy(method, **({} if share is None else {"share": share}))
    batch, length = own["batch_size"] if batch is None else batch, own["max_length"] if length is None else length
    named = {"precision": precision, "backward": backward, "idle": idle, "quantize": quantize}
    _check(batch, length, accumulation, min_layer, named, speed, labels, options)
    refuse_packed(strategy, quantize)
    from irtuning.memory.estimate import Setting, bytes_by_part, layers_that_learn  # imports torch
    strategy.min_layer = max(strategy.min_layer, min_layer)
    adapter = adapter if strategy.scope == "adapters" else None
    values = {key: options.get(key, own.get(key)) for key in ADAPTER_SETTINGS} if adapter else {}
    options = tuple((key, tuple(value) if isinstance(value, list) else value) for key, value in values.items())
    setting = Setting(model, adapter, options, batch // accumulation, length, checkpointing, precision, padded, labels,
                      backward, ("4bit",) * (quantize == "4bit") + ("float8",) * ("float8" in speed))  # fmt: skip
    chosen, ever = layers_that_learn(strategy, load_shape(model).num_hidden_layers)
    held = ever if idle == "keep" else [layer for layer in chosen if layer in ever]  # others are only measured
    parts = bytes_by_part(setting, chosen, held, accumulation)
    one_set = FIXED if ever == chosen and strategy.importance is None else DRAWN
    parts["note"] = one_set if strategy.unit == "layer" else BLOCKS
    return MemoryPrediction(model, name, adapter, batch, length, checkpointing, len(chosen), min(chosen), **parts)


def refuse_packed(strategy: Strategy, quantize: str) -> None:
    """Raise InputError if the base is quantized although a strategy tunes or measures its weights."""
    needs = "tunes all" if strategy.scope == "parameters" else "measures the" * (strategy.importance == "weight")
    if needs and quantize != "none":
        raise InputError(f"method {method_text(strategy)!r} {needs} weights; it needs quantize=none, not {quantize}")


def memory_table(model="mini", adapter="lora", methods: Iterable | None = None, **settings):
    """Return a table of predictions, one row per method, with the columns of `MemoryPrediction.to_dict`.

    By default these are all methods but those that learn only layers which they are given.
    """
    methods = methods or [name for name, kind in METHODS.items() if not issubclass(kind, FixedLayers)]
    import pandas
    return pandas.DataFrame([predict_memory(model, method, adapter, **settings).to_dict() for method in methods])


def usable_bytes(gpu_bytes: int) -> int:
    """Return how many bytes of a GPU's memory PyTorch can use, without CUDA's own and 5 % for fragmentation."""
    return int(gpu_bytes * SLACK) - CONTEXT_BYTES


def largest_batch(gpu_bytes: int, model: str = "mini", method="ir", adapter: str = "lora", **settings) -> int:
    """Return the largest batch (a multiple of `accumulation`) that fits a GPU, or 0. Settings: see `predict_memory`."""
    accumulation, room = settings.get("accumulation", 1), usable_bytes(gpu_bytes)
    def peak(size: int) -> int:
        return predict_memory(model, method, adapter, size * accumulation, **settings).peak_bytes
    too_large = next(size for power in itertools.count() if peak(size := 2**power) > room)
    return bisect.bisect(range(1, too_large), room, key=peak) * accumulation


def lowest_layer_that_fits(gpu_bytes: int, model="mini", method="ir", adapter="lora", **settings) -> int | None:
    """Return the smallest `min_layer` that fits a GPU, or None if none does. Settings: see `predict_memory`."""
    layers = range(load_shape(model).num_hidden_layers - 1)
    peaks = (predict_memory(model, method, adapter, min_layer=layer, **settings).peak_bytes for layer in layers)
    return next((layer for layer, peak in enumerate(peaks) if peak <= usable_bytes(gpu_bytes)), None)


def fit_report(gpu_bytes: int, model="mini", method="ir", adapter="lora", **settings) -> dict[str, object]:
    """Return whether a setting of `predict_memory` fits a GPU, and the largest batch and lowest `min_layer` that do."""
    without_batch, without_layer = ({k: v for k, v in settings.items() if k != left} for left in ("batch", "min_layer"))
    options = {"fits": settings, "fits_with_checkpointing": settings | {"checkpointing": True}}
    peaks = {name: predict_memory(model, method, adapter, **of).peak_bytes for name, of in options.items()}
    return {"gpu_bytes": gpu_bytes, **{name: peak <= usable_bytes(gpu_bytes) for name, peak in peaks.items()},
            "largest_batch": largest_batch(gpu_bytes, model, method, adapter, **without_batch),
            "min_layer_needed": lowest_layer_that_fits(gpu_bytes, model, method, adapter, **without_layer)}


def fit_answer(report: Mapping[str, object]) -> str:
    """Return a sentence that tells whether a prediction with its `fit_report` fits the GPU, and else the cures."""
    sizes = (f"{size / 2**30:.1f} GiB" for size in (report["peak_bytes"], usable_bytes(report["gpu_bytes"])))
    text = "{} predicted, {} usable".format(*sizes)
    if report["fits"]:
        return f"It fits: {text}. The largest batch that fits is {report['largest_batch']}."
    cures = [f"--batch {report['largest_batch']}"] * (report["largest_batch"] > 0)
    cures += [f"--min-layer {report['min_layer_needed']}"] * (report["min_layer_needed"] is not None)
    cures += ["--checkpointing"] * report["fits_with_checkpointing"]
    return f"It does not fit: {text}. What would fit: {', or '.join(cures) or 'a smaller model, or a larger GPU'}."


def parse_gpu(text: str) -> int:
    """Return the bytes in a text such as `24GB` or `24GiB`. A number alone means GB. InputError if it is no size.

    >>> parse_gpu("24GB"), parse_gpu("24 GiB"), parse_gpu("80")
    (24000000000, 25769803776, 80000000000)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(gb|gib|g|)", text.strip().lower())
    if not found or float(found[1]) <= 0:
        raise InputError(f"GPU memory {text!r} cannot be read; write it as 24GB, 24GiB or 80")
    return int(float(found[1]) * (2**30 if found[2] == "gib" else 10**9))


def _check(batch, length, accumulation, min_layer, named, speed, labels, options) -> None:
    if wrong := sorted(set(options) - set(ADAPTER_SETTINGS)):
        raise unknown("setting of a memory prediction", wrong[0], ADAPTER_SETTINGS)
    least = {"batch": batch, "length": length, "accumulation": accumulation, "labels": labels}
    least |= {name: options[name] for name in ("rank", "width") if name in options}
    problems = [f"{name} is {value!r}, give 1 or more" for name, value in least.items() if value < 1]
    problems += [f"min_layer is {min_layer}, give 0 or more"] * (min_layer < 0)
    if not problems and batch % accumulation:
        problems = [f"batch {batch} is not a multiple of accumulation {accumulation}"]
    listed = [*((name, named[name], of) for name, of in CHOICES.items()), *(("speed", s, ACCELERATIONS) for s in speed)]
    problems += [f"{name} is {value!r}, give {' or '.join(of)}" for name, value, of in listed if value not in of]
    if problems:
        raise InputError("; ".join(problems))

"""irtuning: layer-wise fine-tuning for revision intention prediction, an independent companion to IR-Tuning.

Everything public is listed in `__all__` and imported when first used, so that `import irtuning` stays quick.
"""

import importlib
import warnings

# libraries that import tqdm.auto in a notebook complain that ipywidgets is absent; our own bar needs none
warnings.filterwarnings("ignore", message="IProgress not found")

_HOMES = {
    "Corpus": "corpora.base",
    "IRTuning": "callback",
    "InputError": "errors",
    "LayerwiseTrainer": "trainer",
    "LayerwiseTuning": "callback",
    "Revision": "corpora.base",
    "RevisionClassifier": "classifier",
    "Run": "run",
    "RunConfig": "config",
    "add_adapter": "adapters",
    "compare": "comparison",
    "describe_layers": "layers",
    "embedded_model_path": "embedded",
    "find_layers": "layers",
    "largest_batch": "card",
    "load_corpus": "corpora",
    "lowest_layer_that_fits": "card",
    "make_strategy": "strategies",
    "memory_table": "memory",
    "predict_memory": "memory",
    "split_scores": "selector",
    "train": "run",
}
__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'irtuning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"irtuning.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

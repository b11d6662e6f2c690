"""Layer-wise fine-tuning for revision intention prediction: an independent companion to the paper IR-Tuning.

The names in `__all__` are public. Each is imported when it is first used, so that `import irtuning` stays fast.
"""

import importlib

_HOMES = {
    "Corpus": "corpora.base", "IRTuning": "training.callback", "InputError": "errors", "LayerTuner": "method.tuner",
    "LayerwiseTrainer": "training.trainer", "LayerwiseTuning": "training.callback", "Revision": "corpora.base",
    "RevisionClassifier": "training.classifier", "Run": "training.run", "RunConfig": "training.config",
    "add_adapter": "models.adapters", "annotate": "companion.annotate", "compare": "comparison.runs",
    "describe_layers": "models.adapters", "embedded_model_path": "models.catalog", "find_layers": "method.layers",
    "largest_batch": "memory.predict", "load_corpus": "corpora.load", "lowest_layer_that_fits": "memory.predict",
    "make_strategy": "method.registry", "memory_table": "memory.predict", "predict_memory": "memory.predict",
    "probe_layers": "training.probe", "read_documents": "corpora.documents", "skip_backward": "models.backward",
    "split_scores": "method.selector", "train": "training.run", "IdleStates": "training.idle"}  # fmt: skip
__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'irtuning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"irtuning.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

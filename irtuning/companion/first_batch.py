"""Importance of the layers of a classifier on its first batch, before it has learned anything."""

import pandas
from transformers import DataCollatorWithPadding, set_seed

from irtuning.corpora.base import Corpus
from irtuning.method.layers import adapter_modules, adapter_parameters, candidate_layers, find_layers
from irtuning.method.scores import CosineMeter, gradient_score, tensor_norms, weight_scores
from irtuning.method.trainer import batch_order
from irtuning.models.adapters import adapted_classifier
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.models.prompts import encode


def layer_scores(corpus: Corpus, model: str = "mini", **options) -> pandas.DataFrame:
    """Return every importance score of every layer on the first batch of a run with this seed.

    Model, head, adapters and batch are made as `train` makes them, on the CPU in float32, with all adapters trainable.
    The dropout of the adapters is off, so that the scores depend on the batch alone. LoRA's B starts at zero, and so
    the gradient of every A is zero at this step.

    Args:
        corpus, model: The corpus, and the name of the model.
        options: `adapter` ("lora"), `seed` (171) and `batch_size` (8).

    Returns:
        One row per layer, with the gradient score in the forms `reference` and `l2`, the `weight` score and `cosine`
        (per token). `attrs["made_with"]` describes the model for a stamp.
    """
    tuned, similarities, made_with = _one_batch(corpus, model, **options)
    layers = candidate_layers(tuned)
    columns = {form: [_score(tensors, form) for tensors in layers.parameters] for form in ("reference", "l2")}
    columns |= {"weight": weight_scores(tuned, layers), "cosine": similarities.tolist()}
    return _described(pandas.DataFrame(columns, index=pandas.Index(layers.indices, name="layer")), made_with)


def component_norms(corpus: Corpus, model: str = "mini", **options) -> pandas.DataFrame:
    """Return the L2 norm of the gradient of each adapted module: one row per layer, one column per module.

    The batch and the options are those of `layer_scores`. Its `l2` is the root of a row's summed squares.
    """
    tuned, _, made_with = _one_batch(corpus, model, **options)
    layers = find_layers(tuned)
    modules = {index: adapter_modules(layers[index]) for index in candidate_layers(tuned).indices}
    rows = {i: {name: _score(adapter_parameters(m), "l2") for name, m in pairs} for i, pairs in modules.items()}
    table = _described(pandas.DataFrame.from_dict(rows, orient="index").rename_axis("layer"), made_with)
    short = [name.rpartition(".")[2] for name in table.columns]
    return table.set_axis(short, axis=1) if len(set(short)) == len(short) else table


def _score(tensors, form: str) -> float:
    return gradient_score(tensor_norms([tensor.grad for tensor in tensors]).tolist(), form)


def _described(table: pandas.DataFrame, made_with: str) -> pandas.DataFrame:
    table.attrs["made_with"] = made_with
    return table


def _one_batch(corpus: Corpus, name: str, adapter: str = "lora", seed: int = 171, batch_size: int = 8):
    """Return the adapted classifier after one backward pass, the cosine similarities and the text for a stamp."""
    source = resolve(name)
    set_seed(seed)  # before the model is made: its head and adapters are random
    tokenizer = load_tokenizer(source)
    settings = {name: source.settings[name] for name in ("rank", "alpha", "width")}
    classifier = load_classifier(source, corpus.labels, tokenizer)
    tuned = adapted_classifier(classifier, adapter, dropout=0.0, **settings).train()
    ids = encode(corpus.train, tokenizer, corpus.labels, source.form, source.settings["max_length"])
    first = batch_order(seed, 0, [len(row) for row in ids], batch_size)[:batch_size]
    rows = [{"input_ids": ids[i], "labels": corpus.labels.index(corpus.train[i].intention)} for i in first]
    meter = CosineMeter(tuned, candidate_layers(tuned))
    tuned(**DataCollatorWithPadding(tokenizer)(rows)).loss.backward()
    meter.remove()
    total, adapters = (sum(p.numel() for p in tensors) for tensors in (tuned.parameters(), adapter_parameters(tuned)))
    size = f"{'random weights, ' * source.random_weights}{(total - adapters) / 1e6:.1f} M parameters"
    return tuned, meter.read(), f"{name} ({size}), {adapter} · seeds {seed} · steps 0, one batch · CPU"

"""Importance of the layers of a classifier on its first batch, before it has learned anything."""

import pandas
from transformers import DataCollatorWithPadding, set_seed

from irtuning.corpora.base import Corpus
from irtuning.method.layers import adapter_modules, adapter_parameters, candidate_layers, find_layers
from irtuning.method.scores import CosineMeter, gradient_score, tensor_norms, weight_scores
from irtuning.models.adapters import adapted_classifier
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.models.prompts import encode
from irtuning.training.trainer import batch_order


def layer_scores(corpus: Corpus, model: str = "mini", **options) -> pandas.DataFrame:
    """Return the gradient, weight and cosine scores of every layer (row) on the first batch of a run.

    Model and batch are made as by `train`, on the CPU, but without dropout, which would add randomness. `options`
    are `adapter`, `seed` and `batch_size`. `attrs["made_with"]` describes the model for a stamp.
    """
    tuned, layers, similarities, made_with = _one_batch(corpus, model, **options)
    columns = {form: [_score(tensors, form) for tensors in layers.parameters] for form in ("reference", "l2")}
    columns |= {"weight": weight_scores(tuned, layers), "cosine": similarities.tolist()}
    table = pandas.DataFrame(columns, index=pandas.Index(layers.indices, name="layer"))
    table.attrs["made_with"] = made_with
    return table


def component_norms(corpus: Corpus, model: str = "mini", **options) -> pandas.DataFrame:
    """Return the L2 norm of the gradient of each adapted module (column) in each layer (row) on the same batch."""
    tuned, layers, _, made_with = _one_batch(corpus, model, **options)
    modules = [adapter_modules(find_layers(tuned)[index]) for index in layers.indices]
    rows = [{name: _score(adapter_parameters(module), "l2") for name, module in pairs} for pairs in modules]
    table = pandas.DataFrame(rows, index=pandas.Index(layers.indices, name="layer"))
    table.attrs["made_with"] = made_with
    short = [name.rpartition(".")[2] for name in table.columns]
    return table.set_axis(short, axis=1) if len(set(short)) == len(short) else table


def _score(tensors, form: str) -> float:
    return gradient_score(tensor_norms([tensor.grad for tensor in tensors]).tolist(), form)


def _one_batch(corpus: Corpus, name: str, adapter: str = "lora", seed: int = 171, batch_size: int = 8):
    """Return the adapted classifier after one backward pass, its layers, their cosines, and the text of the stamp."""
    source = resolve(name)
    tokenizer, settings = load_tokenizer(source), {key: source.settings[key] for key in ("rank", "alpha", "width")}
    set_seed(seed)  # before the model is made: its head and adapters are random
    classifier = load_classifier(source, corpus.labels, tokenizer)
    tuned = adapted_classifier(classifier, adapter, dropout=0.0, **settings).train()
    ids = encode(corpus.train, tokenizer, corpus.labels, source.form, source.settings["max_length"])
    first = batch_order(seed, 0, [len(row) for row in ids], batch_size)[:batch_size]
    rows = [{"input_ids": ids[i], "labels": corpus.labels.index(corpus.train[i].intention)} for i in first]
    meter = CosineMeter(tuned, layers := candidate_layers(tuned))
    tuned(**DataCollatorWithPadding(tokenizer)(rows)).loss.backward()
    meter.remove()
    total, adapters = (sum(p.numel() for p in tensors) for tensors in (tuned.parameters(), adapter_parameters(tuned)))
    size = f"{'random weights, ' * source.random_weights}{(total - adapters) / 1e6:.1f} M parameters"
    return tuned, layers, meter.read(), f"{source.title} ({size}), {adapter} · seeds {seed} · steps 0, one batch · CPU"

"""What one batch says about the layers of a classifier before it has learned anything."""

import pandas
import torch
from torch import nn
from transformers import DataCollatorWithPadding, set_seed

from irtuning.models.adapters import adapted_classifier
from irtuning.method.trainer import batch_order
from irtuning.corpora.base import Corpus
from irtuning.method.scores import CosineMeter, gradient_score, tensor_norms, weight_scores
from irtuning.method.layers import adapter_modules, adapter_parameters, candidate_layers, find_layers
from irtuning.models.loading import load_classifier, load_tokenizer, resolve
from irtuning.models.prompts import encode


def layer_anatomy(
    corpus: Corpus, model: str = "mini", *, adapter: str = "lora", seed: int = 171, batch_size: int = 8
) -> pandas.DataFrame:
    """Every importance measure of every layer on the first batch a run with this seed takes, all adapters learning.

    One row per layer: the gradient score in the forms `reference` and `l2`, the `weight` score, and `cosine` (per
    token). Model, head, adapters and batch are made as `train` makes them, on the CPU in float32; the adapters'
    dropout is off, so that the batch alone decides. LoRA's B starts at zero, so the gradient of every A is zero at
    this step (likewise the bottleneck's `down`): the scores are those of the B matrices. `attrs["made_with"]` is the
    stamp's text on the model.
    """
    tuned, similarities = _one_batch(corpus, model, adapter, seed, batch_size)
    layers = candidate_layers(tuned)
    norms = [tensor_norms([p.grad for p in tensors]).tolist() for tensors in layers.parameters]
    columns = {form: [gradient_score(layer, form) for layer in norms] for form in ("reference", "l2")}
    columns |= {"weight": weight_scores(tuned, layers), "cosine": similarities.tolist()}
    table = pandas.DataFrame(columns, index=pandas.Index(layers.indices, name="layer"))
    table.attrs["made_with"] = _made_with(tuned, model, adapter, seed)
    return table


def component_norms(
    corpus: Corpus, model: str = "mini", *, adapter: str = "lora", seed: int = 171, batch_size: int = 8
) -> pandas.DataFrame:
    """L2 norm of the gradient of each adapted module: one row per layer, one column per module (q_proj, ...).

    The same batch as in `layer_anatomy`, whose `l2` is the root of a row's summed squares. LoRA's A has no gradient
    there, since B starts at zero.
    """
    tuned, _ = _one_batch(corpus, model, adapter, seed, batch_size)
    rows = {
        index: {name: _gradient_norm(module) for name, module in adapter_modules(find_layers(tuned)[index])}
        for index in candidate_layers(tuned).indices
    }
    table = pandas.DataFrame.from_dict(rows, orient="index").rename_axis("layer")
    table.attrs["made_with"] = _made_with(tuned, model, adapter, seed)
    short = [name.rpartition(".")[2] for name in table.columns]
    return table.set_axis(short, axis=1) if len(set(short)) == len(short) else table


def _one_batch(corpus: Corpus, name: str, adapter: str, seed: int, size: int) -> tuple[nn.Module, torch.Tensor]:
    """The adapted classifier after one forward and backward pass, and each layer's cosine similarity."""
    source = resolve(name)
    own = source.settings
    set_seed(seed)  # before the model is made: its head and adapters are random
    tokenizer = load_tokenizer(source)
    classifier = load_classifier(source, corpus.labels, tokenizer)
    settings = {name: own[name] for name in ("rank", "alpha", "width")}
    tuned = adapted_classifier(classifier, adapter, dropout=0.0, **settings).train()
    ids = encode(corpus.train, tokenizer, corpus.labels, source.form, own["max_length"])
    first = batch_order(seed, 0, [len(row) for row in ids], size)[:size]
    labels = [corpus.labels.index(corpus.train[i].intention) for i in first]
    rows = [{"input_ids": ids[i], "labels": label} for i, label in zip(first, labels, strict=True)]
    meter = CosineMeter(tuned, candidate_layers(tuned))
    tuned(**DataCollatorWithPadding(tokenizer)(rows)).loss.backward()
    meter.remove()
    return tuned, meter.read()


def _made_with(tuned: nn.Module, model: str, adapter: str, seed: int) -> str:
    """What a stamp says of the model that read the batch."""
    whole, adapters = (sum(p.numel() for p in found) for found in (tuned.parameters(), adapter_parameters(tuned)))
    size = f"{(whole - adapters) / 1e6:.1f} M parameters"
    kind = "random weights, " if resolve(model).random_weights else ""
    return f"{model} ({kind}{size}), {adapter} · seeds {seed} · steps 0, one batch · CPU"


def _gradient_norm(module: nn.Module) -> float:
    return gradient_score(tensor_norms([p.grad for p in adapter_parameters(module)]).tolist(), "l2")

"""The commands that list what can be chosen: methods, models and settings."""

import dataclasses
import math
from inspect import signature

from irtuning.cli import options as opt
from irtuning.cli.commands import train
from irtuning.method.registry import METHODS
from irtuning.models.loading import load_shape, resolve
from irtuning.training.config import RunConfig, allowed, comments


def methods(as_json: opt.Json = False) -> None:
    """List the methods with their options, defaults and allowed values.

    An option is written after the name, as in ir:variant=exact:splits=2. Wherever a command takes a method, it also
    takes a strategy class of your own, written as FILE.py:Class.
    """
    texts, options = {}, {}
    for name, kind in METHODS.items():
        fields, meanings = dataclasses.fields(kind), comments(kind)
        own = [f"{f.name}={f.default}" for f in fields if f.type in (int, float, str)]
        summary, _, _ = kind.__doc__.partition("\n\n")
        texts[name] = f"{' '.join(summary.split())} [{' '.join(own)}]"
        for field in fields:
            low, high = kind.limits.get(field.name, (0, 0))
            values = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}" if high else ""
            values = " or ".join(kind.forms) if field.name == "score" else values
            meaning = meanings.get(field.name, "see its class") + (f" ({values})" if values else "")
            options.setdefault(f"{field.name:<14} {meaning}", []).append(name)
    width = max(map(len, texts)) + 1
    lines = [f"{name + ':':<{width}} {text}" for name, text in texts.items()] + ["", "The options:"]
    lines += [f"{line}: {'all' if len(of) == len(METHODS) else ', '.join(of)}" for line, of in options.items()]
    opt.show(texts, as_json, "\n".join(lines))


def models(as_json: opt.Json = False) -> None:
    """List the models that have a name. Others are given as a Hub id (owner/name), a local folder or a GGUF file."""
    import pandas
    from irtuning.models.catalog import MODELS, model_names
    rows = {}
    for name in model_names():
        shape, source = load_shape(name), resolve(name)
        own = "random, for tests" if source.random_weights else "part of this package"
        rows[name] = {"layers": shape.num_hidden_layers, "width": shape.hidden_size, "form": source.form,
                      "batch_size": source.settings["batch_size"], "weights": source.path if name in MODELS else own}
    table = pandas.DataFrame(rows).T.to_string(index_names=False)
    opt.show(rows, as_json, f"{table}\nOr give a Hub id (owner/name), a local folder or a GGUF file.")


def settings(model: opt.Model = "mini", as_json: opt.Json = False) -> None:
    """List what --set takes, with the values and their meaning.

    None stands for a value that is chosen when training starts. Example: irtuning settings --model smollm2-135m.
    """
    of_model, options = resolve(model).settings, {*signature(train).parameters, "counts"}
    fields = [f for f in dataclasses.fields(RunConfig) if f.name not in options]
    values, meanings = {f.name: of_model.get(f.name, f.default) for f in fields}, comments(RunConfig)
    lines = [f"{f.name:<18} {values[f.name]!s:<8} {allowed(f.name)}: {meanings.get(f.name, '')}" for f in fields]
    opt.show(values, as_json, "\n".join(lines))

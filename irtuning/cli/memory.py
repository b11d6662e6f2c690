"""The command that predicts memory."""

from typing import Annotated

import typer

from irtuning.cli.app import app
from irtuning.cli.options import Adapter, Json, Method, show
from irtuning.errors import InputError, read_as

KINDS = {"rank": int, "alpha": int, "dropout": float, "width": int, "share": float, "accumulation": int, "labels": int,
         "precision": str, "optimizer": str, "padded": bool, "target_modules": tuple[str, ...]}  # fmt: skip


@app.command()
def memory(
    model: Annotated[
        str, typer.Option(help="The model: a name such as llama-3.1-8b, a local folder or its config.json.")
    ] = "mini",
    method: Method = "ir",
    adapter: Adapter = "lora",
    batch: Annotated[int | None, typer.Option(help="Examples in a step. By default the model's own batch size.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens in an example. By default the model's own maximum.")] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute the activations of each layer in the backward pass.")
    ] = False,
    min_layer: Annotated[int, typer.Option(help="The lowest layer that may learn. Backpropagation ends there.")] = 0,
    gpu: Annotated[
        str | None,
        typer.Option(help="The memory of a GPU (24GB, 24GiB or 80). The answer then says whether training fits, the "
                     "largest batch that fits, and the --min-layer that is needed."),
    ] = None,  # fmt: skip
    every: Annotated[bool, typer.Option("--all", help="Show every method, one in each row.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="name=value", help=f"Change another setting. It can be repeated, and the "
                     f"settings are {', '.join(KINDS)}."),
    ] = None,  # fmt: skip
    as_json: Json = False,
) -> None:
    """Predict the peak GPU memory of training, without a GPU.

    No weights are needed either. If a method draws its layers, the prediction is for its worst draw: as many layers
    as it can take, the lowest one among them. What saves memory is where backpropagation ends: compare --min-layer 0
    with half the model's depth.

    \b
    irtuning memory --model llama-3.1-8b --batch 16 --length 256 --gpu 24GB
    irtuning memory --model llama-3.1-8b --batch 16 --length 256 --all --checkpointing
    irtuning memory --model phi-2 --method last-k --set share=0.25 --set rank=8 --set padded=false
    """
    from irtuning.memory.fit import card_report, parse_gpu
    from irtuning.memory.predict import memory_table, predict_memory
    from irtuning.training.config import parse_settings

    gpu_bytes, texts = parse_gpu(gpu) if gpu else None, parse_settings(settings or [])
    if wrong := sorted(set(texts) - set(KINDS)):
        raise InputError(f"unknown setting {wrong[0]!r}; a memory prediction takes {', '.join(KINDS)}")
    asked = {"batch": batch, "length": length, "checkpointing": checkpointing, "min_layer": min_layer}
    asked |= {name: read_as(name, text, KINDS[name]) for name, text in texts.items()}
    if every:
        rows = memory_table(model, adapter, **asked).to_dict("records")
        rows = [row | card_report(gpu_bytes, model, row["method"], adapter, **asked) for row in rows]
        show({"model": model, "gpu_bytes": gpu_bytes, "methods": rows}, as_json, _table(rows).to_string())
    else:
        row = predict_memory(model, method, adapter, **asked).to_dict()
        row |= card_report(gpu_bytes, model, method, adapter, **asked)
        show(row, as_json, _table([row]).T.to_string())


def _table(rows: list[dict]):
    """Return predictions as a DataFrame with a row for each method, sizes in GiB and what was assumed in the title."""
    import pandas

    from irtuning.memory.predict import PARTS

    one = rows[0]
    title = f"{one['model']}, batch {one['batch']}, {one['length']} tokens; sizes in GiB, all predicted"
    table = pandas.DataFrame(rows, dtype=object).set_index("method").rename_axis(columns=title)
    sizes = {name: name for name in PARTS} | {"peak_bytes": "predicted_peak"}
    table[list(sizes)] = (table[list(sizes)].astype(float) / 2**30).round(2)
    if "min_layer_needed" in table:
        table["min_layer_needed"] = ["none fits" if layer is None else layer for layer in table.min_layer_needed]
    answers = [name for name in ("fits", "largest_batch", "min_layer_needed") if name in table]
    return table[["layers", "lowest_layer", *sizes, *answers]].rename(columns=sizes)

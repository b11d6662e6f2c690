"""The command that predicts memory."""

from typing import Annotated

import typer

from irtuning.cli.app import app
from irtuning.cli.options import Adapter, Json, show
from irtuning.errors import InputError, read_as

KINDS = {"rank": int, "alpha": int, "dropout": float, "width": int, "share": float, "accumulation": int, "labels": int,
         "precision": str, "optimizer": str, "padded": bool, "target_modules": tuple[str, ...]}  # fmt: skip


@app.command()
def memory(
    model: Annotated[str, typer.Option(help="A model name, a local folder or its config.json.")] = "mini",
    method: Annotated[str, typer.Option(help="See `irtuning methods`.")] = "ir",
    adapter: Adapter = "lora",
    batch: Annotated[int | None, typer.Option(help="Examples a step; the model's own where absent.")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens an example; the model's own where absent.")] = None,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Recompute each layer in backprop.")] = False,
    min_layer: Annotated[int, typer.Option(help="No lower layer learns; backprop ends there.")] = 0,
    gpu: Annotated[
        str | None,
        typer.Option(help="A card's memory (24GB, 24GiB, 80): what fits, the largest batch, the min-layer needed."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every method side by side.")] = False,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help=f"Any of {', '.join(KINDS)} as name=value, repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict whether training fits a GPU: its peak memory by part. Needs no GPU and no weights.

    Where a method draws its layers, the prediction is for its worst draw: the most layers it can take, with the
    lowest allowed among them. What saves is how far down backprop runs: compare --min-layer 0 with half the depth.

    \b
    irtuning memory --model llama-3.1-8b --batch 16 --length 256 --gpu 24GB
    irtuning memory --model llama-3.1-8b --batch 16 --length 256 --all --checkpointing
    irtuning memory --model phi-2 --method last-k --set share=0.25 --set rank=8 --set padded=false
    """
    from irtuning.memory.fit import fit_report, parse_gpu
    from irtuning.training.config import parse_settings
    from irtuning.memory.predict import memory_table, predict_memory

    size = parse_gpu(gpu) if gpu else None
    asked = {"batch": batch, "length": length, "checkpointing": checkpointing, "min_layer": min_layer}
    asked |= _read(parse_settings(settings or []))
    if every:
        table = memory_table(model, adapter, **asked)
        rows = [row | fit_report(size, model, row["method"], adapter, **asked) for row in table.to_dict("records")]
        show({"model": model, "gpu_bytes": size, "methods": rows}, True) if as_json else typer.echo(_side_by_side(rows))
        return
    row = predict_memory(model, method, adapter, **asked).to_dict() | fit_report(size, model, method, adapter, **asked)
    show(row if as_json else _in_gib(row), as_json)


def _read(texts: dict[str, str]) -> dict:
    if wrong := sorted(set(texts) - set(KINDS)):
        raise InputError(f"unknown setting {wrong[0]!r}; a memory prediction takes {', '.join(KINDS)}")
    return {name: read_as(name, text, KINDS[name]) for name, text in texts.items()}


def _in_gib(row: dict) -> dict:
    """The same with bytes as GiB and the peak first."""
    from irtuning.memory.predict import PARTS

    sizes = {name: f"{row[name] / 2**30:.2f} GiB" for name in PARTS}
    named = {"predicted peak": f"{row['peak_bytes'] / 2**30:.2f} GiB"} | sizes
    return named | {name: value for name, value in row.items() if name not in (*PARTS, "peak_bytes")}


def _side_by_side(rows: list[dict]) -> str:
    import pandas

    from irtuning.memory.predict import PARTS

    table = pandas.DataFrame(rows, dtype=object).set_index("method")
    sizes = [*PARTS, "peak_bytes"]
    table[sizes] = (table[sizes].astype(float) / 2**30).round(2)
    table = table.rename(columns={"peak_bytes": "predicted_peak"})
    first = ["layers", "lowest_layer", *PARTS, "predicted_peak"]
    if "min_layer_needed" in table:
        table["min_layer_needed"] = ["none fits" if layer is None else layer for layer in table.min_layer_needed]
    card = [name for name in ("fits", "largest_batch", "min_layer_needed") if name in table]
    shown = table[first + card].to_string()
    one = rows[0]
    return f"{one['model']}, batch {one['batch']}, {one['length']} tokens; sizes in GiB, all predicted\n{shown}"

"""The command that predicts memory."""

from irtuning.cli import options as opt
from irtuning.errors import InputError, read_as

KINDS = {"rank": int, "alpha": int, "dropout": float, "width": int, "share": float, "accumulation": int, "labels": int,
         "precision": str, "optimizer": str, "padded": bool, "target_modules": tuple[str, ...]}  # fmt: skip


def memory(
    model: opt.Model = "mini", method: opt.Method = "ir", adapter: opt.Adapter = "lora", batch: opt.Batch = None,
    length: opt.Length = None, checkpointing: opt.Checkpointing = False, min_layer: opt.MinLayer = 0,
    gpu: opt.Gpu = None, every: opt.Every = False, settings: opt.MemorySetting = None, as_json: opt.Json = False,
) -> None:  # fmt: skip
    """Predict the peak GPU memory of training, without a GPU.

    No weights are needed either: --model also takes a config.json. If a method draws its layers, the prediction is for
    its worst draw, which is as many layers as it can take with the lowest one among them. What saves memory is where
    backpropagation ends: compare --min-layer 0 with half the depth of the model.

    Settings for --set: rank, alpha, dropout, width, share, accumulation, labels, precision (bf16 or fp32), optimizer
    (fused or foreach), padded (true or false) and target_modules.

    \b
    irtuning memory --model llama-3.1-8b --batch 16 --length 256 --gpu 24GB
    irtuning memory --model llama-3.1-8b --batch 16 --length 256 --all --checkpointing
    irtuning memory --model phi-2 --method last-k --set share=0.25 --set rank=8 --set padded=false
    """
    from irtuning.memory.fit import fit_report, parse_gpu
    from irtuning.memory.predict import memory_table, predict_memory
    from irtuning.training.config import parse_settings

    gpu_bytes, texts = parse_gpu(gpu) if gpu else None, parse_settings(settings or [])
    if wrong := sorted(set(texts) - set(KINDS)):
        raise InputError(f"unknown setting {wrong[0]!r}; a memory prediction takes {', '.join(KINDS)}")
    asked = {"batch": batch, "length": length, "checkpointing": checkpointing, "min_layer": min_layer}
    asked |= {name: read_as(name, text, KINDS[name]) for name, text in texts.items()}
    if every:
        rows = memory_table(model, adapter, **asked).to_dict("records")
        rows = [row | fit_report(gpu_bytes, model, row["method"], adapter, **asked) for row in rows]
        opt.show({"model": model, "gpu_bytes": gpu_bytes, "methods": rows}, as_json, _text(rows))
    else:
        row = predict_memory(model, method, adapter, **asked).to_dict()
        row |= fit_report(gpu_bytes, model, method, adapter, **asked)
        opt.show(row, as_json, _text([row]))


def _text(rows: list[dict]) -> str:
    """Return predictions as a table with sizes in GiB, a method in each row or a single one in a column."""
    import pandas

    from irtuning.memory.predict import PARTS

    sizes = {name: name for name in PARTS} | {"peak_bytes": "predicted_peak"}
    table = pandas.DataFrame(rows, dtype=object).set_index("method")
    table[list(sizes)] = (table[list(sizes)].astype(float) / 2**30).round(2)
    answers = [name for name in ("fits", "largest_batch", "min_layer_needed") if name in table]
    table = table.where(table.notna(), "none fits")  # a min_layer_needed that does not exist
    table = table[["layers", "lowest_layer", *sizes, *answers]].rename(columns=sizes)
    note, table = ("all predicted", table) if len(rows) > 1 else (rows[0]["note"], table.T)
    title = "{model}, batch {batch}, {length} tokens; sizes in GiB".format(**rows[0])
    return f"{title}; {note}\n{table.to_string()}"

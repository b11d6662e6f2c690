"""Predict what IR-Tuning of an 8B model needs on GPUs of 24 GB and of 16 GB, with the base in 16, 8 and 4 bits.

Run `python reports/benchmarks/small_cards.py`; it writes reports/benchmarks/small_cards.md. Nothing is measured. One
row is what `irtuning memory --model llama-3.1-8b --set quantize=4bit --gpu 24GB` says.
"""

from irtuning.companion.paths import REPOSITORY
from irtuning.memory.predict import fit_report, parse_gpu, predict_memory
from irtuning.training.record import write_text

SHAPE = {"model": "llama-3.1-8b", "method": "ir", "length": 256}
BASES = {"bf16": {}, "float8": {"speed": ("float8",)}, "4bit": {"quantize": "4bit"}}
COLUMNS = ("GPU", "base", "checkpointing", "peak, GiB", "fits", "lowest layer that fits", "peak from there on, GiB", "largest batch")


def rows():
    """Yield the cells of each row."""
    for gpu in ("24GB", "16GB"):
        for base, settings in BASES.items():
            for checkpointing in (False, True):
                given = SHAPE | settings | {"checkpointing": checkpointing}
                report = fit_report(parse_gpu(gpu), batch=16, **given)
                layer, batch = report["min_layer_needed"], str(report["largest_batch"])
                lowest = ("none", "–") if layer is None else (str(layer), peak(**given, min_layer=layer))
                yield gpu, base, yes(checkpointing), peak(**given), yes(report["fits"]), *lowest, batch


def peak(**given):
    """Return the predicted peak in GiB as a text."""
    return f"{predict_memory(batch=16, **given).peak_bytes / 2**30:.1f}"


def yes(answer):
    """Return `yes` or `no`."""
    return "yes" if answer else "no"


def main():
    """Write the table."""
    title = "IR-Tuning of Llama-3.1-8B, LoRA of rank 32, 16 examples of 256 tokens, predicted by `small_cards.py`.\n\n"
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows()]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = (
        "\nThe peak is the worst case: the most layers that the method can choose, layer 0 among them. `lowest layer that "
        "fits` is the smallest `--min-layer` with which it fits, 16 examples at a time. `largest batch` is what fits when "
        "every layer may learn. Half a GiB and 5 % of a GPU are left for CUDA and fragmentation, so 24 GB hold 20.7 GiB and "
        "16 GB hold 13.7. Steps are eager.\n"
    )
    write_text(REPOSITORY / "reports" / "benchmarks" / "small_cards.md", title + table + notes)


if __name__ == "__main__":
    main()

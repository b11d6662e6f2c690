"""Measure the time of a LoRA training step on this machine's CPU, for the three shapes that were tried.

Run `python reports/benchmarks/step_speed.py` on an idle machine. It writes reports/mini/step_speed.json. A step is the
forward pass, the backward pass and Adam on a batch of 16 x 48 tokens, where all layers or the upper half learn. Every
setting runs in its own process. `avx2` forbids AVX-512 and AMX.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch

from irtuning.models.adapters import add_adapter
from irtuning.companion.paths import REPOSITORY
from irtuning.training.record import provenance
from irtuning.training.record import write_text

sys.path.append(str(REPOSITORY / "reports" / "mini"))
from pretrain_model import Recipe  # noqa: E402

SHAPES = {128: 352, 192: 512, 256: 704}
BATCH, LENGTH, WARM, STEPS = 16, 48, 3, 15
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def milliseconds(width: int, precision: str, layers: str) -> float:
    """Return the median time of a step in milliseconds."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    recipe = Recipe(width=width, intermediate=SHAPES[width])
    config = LlamaConfig(
        vocab_size=recipe.vocabulary, hidden_size=width, intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers, num_attention_heads=width // recipe.head_width, num_labels=9, pad_token_id=0,
        use_cache=False,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config)
    model = add_adapter(model.bfloat16() if precision == "bf16" else model, "lora", rank=16, alpha=32, dropout=0.05)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            lower = any(f".layers.{i}." in name for i in range(recipe.layers // 2))
            parameter.requires_grad_(not (layers == "upper half" and lower))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    ids, labels = torch.randint(10, recipe.vocabulary, (BATCH, LENGTH)), torch.randint(0, 9, (BATCH,))
    seconds = []
    for _ in range(WARM + STEPS):
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds[WARM:]), 1)


def main() -> None:
    """Measure every setting, each in a process of its own, and write the record."""
    rows = []
    for instructions, more in (("all", {}), ("avx2", AVX2)):
        for width in SHAPES:
            for precision in ("fp32", "bf16"):
                for layers in ("all", "upper half"):
                    words = [sys.executable, __file__, str(width), precision, layers]
                    found = subprocess.run(words, env=os.environ | more, capture_output=True, text=True, check=True)
                    row = {"instructions": instructions, "width": width, "precision": precision, "layers": layers}
                    rows.append(row | {"milliseconds": float(found.stdout)})
                    print(rows[-1])
    what = f"LoRA r=16, batch {BATCH} x {LENGTH} tokens, median of {STEPS} steps, random weights"
    record = {
        "what": what,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "rows": rows,
        "meta": provenance(),
    }
    write_text(REPOSITORY / "reports" / "mini" / "step_speed.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(milliseconds(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
    else:
        main()

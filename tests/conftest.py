"""What several tests share: tiny random classifiers, a learnable toy data set, and the place of the real corpora."""

import gc
import json
import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import transformers

SIZES = {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_labels": 3}
GATED = SIZES | {
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PLAIN = SIZES | {"intermediate_size": 48, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ARCHITECTURES = {
    "Llama": GATED,
    "Mistral": GATED,
    "Qwen3": GATED | {"head_dim": 8},
    "Phi": PLAIN,
    "Gemma": GATED | {"head_dim": 8},
    "GPT2": {"vocab_size": 100, "n_embd": 32, "n_layer": 4, "n_head": 4, "num_labels": 3,
             "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "OPT": PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "Bert": PLAIN,
    "Roberta": PLAIN,
    "ModernBert": PLAIN | {"cls_token_id": 1, "sep_token_id": 2},
}  # fmt: skip
COLOURS = ("red", "green", "blue", "black", "white", "brown", "pink", "grey", "gold", "teal")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Several processes divide the tests by file. One of them takes all notebooks, which share their runs."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "notebooks" if ".ipynb" in nodeid else nodeid.split("::")[0]

    config.option.loadscopereorder = False  # in the order of pyproject.toml
    return ByFile(config, log)


def pytest_collection_finish():
    """Leave all imported modules out of the garbage collection that accelerate asks for at the start of every run."""
    gc.freeze()


def make_classifier(architecture: str = "Llama", seed: int = 0, **settings):
    """A random sequence classifier of 4 layers, 32 wide."""
    transformers.set_seed(seed)
    config = getattr(transformers, f"{architecture}Config")(**(ARCHITECTURES[architecture] | settings))
    return transformers.AutoModelForSequenceClassification.from_config(config)


def make_examples(count: int = 48, seed: int = 0) -> list[dict]:
    """Token ids of uneven length whose label is told by the first token."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 12, (count,), generator=generator).tolist()
    rows = [torch.randint(10, 100, (n,), generator=generator).tolist() for n in lengths]
    return [{"input_ids": [3 + i % 3, *row], "labels": i % 3} for i, row in enumerate(rows)]


def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
    """A padded batch of such examples."""
    width = max(len(e["input_ids"]) for e in examples)
    ids = torch.tensor([e["input_ids"] + [0] * (width - len(e["input_ids"])) for e in examples])
    labels = torch.tensor([e["labels"] for e in examples])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the published corpora, from IRTUNING_DATA."""
    folder = os.environ.get("IRTUNING_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("IRTUNING_DATA names no folder with the published corpora")
    return Path(folder)


@pytest.fixture(scope="session")
def own_corpus(tmp_path_factory):
    """A file of one's own: 'add' puts a colour in, 'drop' takes it out."""
    rows = []
    for i in range(120):
        plain, coloured = f"the car {i} stops", f"the {COLOURS[i % 10]} car {i} stops"
        pair = (plain, coloured, "add") if i % 3 else (coloured, plain, "drop")
        rows.append(dict(zip(("old", "new", "why"), pair, strict=True)) | {"writer": f"w{i // 4}"})
    path = tmp_path_factory.mktemp("corpus") / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "corpus": str(path),
        "before": "old",
        "after": "new",
        "label": "why",
        "group": "writer",
        "precision": "fp32",
        "model": "tiny-random",
    }

"""The small language model, its loss, and its pre-training."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from pretrain_pairs import SPECIAL
from pretrain_text import Rows

from irtuning.errors import InputError, read_as, unknown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WINDOW = 480  # tokens that are scored together for the held-out loss
PAD, BEGIN, END = 0, 1, 2


@dataclass(frozen=True)
class Recipe:
    """Settings of pre-training: the shape of the model, the mix of text, and the length and rate of training."""

    vocabulary: int = 8192
    layers: int = 12
    width: int = 256
    intermediate: int = 704
    head_width: int = 32
    context: int = 512
    pairs: float = 0.5  # share of the tokens that belong to edited pairs
    tail: bool = True  # whether a tail after a pair lists what was changed
    steps: int = 9000
    batch_tokens: int = 98304
    learning_rate: float = 3e-3
    warmup: float = 0.02  # share of the steps
    weight_decay: float = 0.1
    seed: int = 0

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Recipe":
        """Return a recipe from texts such as `{"width": "128"}`.

        Raises:
            InputError: a name is unknown, or a value is invalid.
        """
        kinds = {f.name: f.type for f in fields(cls)}
        for name in given:
            if name not in kinds:
                raise unknown("setting", name, kinds)
        recipe = cls(**{name: read_as(name, text, kinds[name]) for name, text in given.items()})
        recipe._check()
        return recipe

    def _check(self) -> None:
        least = {"vocabulary": 256 + len(SPECIAL), "layers": 1, "width": 1, "intermediate": 1, "context": 16}
        least |= {"steps": 1, "batch_tokens": 1, "seed": 0, "weight_decay": 0}
        problems = [
            f"{n} is {getattr(self, n)}, give {low} or more" for n, low in least.items() if getattr(self, n) < low
        ]
        for name, most in {"pairs": 1, "warmup": 1, "learning_rate": 1}.items():
            if not 0 <= getattr(self, name) <= most:
                problems.append(f"{name} is {getattr(self, name)}, give 0 to {most}")
        if self.head_width < 2 or self.head_width % 2 or self.width % self.head_width:
            problems.append(f"width {self.width} is not a multiple of head_width {self.head_width}, which must be even")
        if problems:
            raise InputError("; ".join(problems))


def make_model(recipe: Recipe, vocabulary: int) -> "PreTrainedModel":
    """Return a Llama model of the recipe's shape with random weights. Input and output share their embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=recipe.width,
            intermediate_size=recipe.intermediate,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.width // recipe.head_width,
            max_position_embeddings=recipe.context,
            tie_word_embeddings=True,
            pad_token_id=PAD,
            bos_token_id=BEGIN,
            eos_token_id=END,
            use_cache=False,
        )
    )


def _cross_entropy(hidden: "torch.Tensor", table: "torch.Tensor", targets: "torch.Tensor") -> "torch.Tensor":
    import torch

    return torch.nn.functional.cross_entropy((hidden @ table.T).float(), targets)


def bits_per_byte(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", documents: Sequence[str], begin: int = BEGIN
) -> float:
    """Return the held-out loss in bits per byte of UTF-8. Documents are read in windows of 480 tokens.

    Each window stands after the token `begin`, as each document did when the model was pre-trained.
    """
    import torch

    device = next(model.parameters()).device
    windows = []
    for ids in tokenizer(list(documents), add_special_tokens=False, verbose=False)["input_ids"]:
        windows += [[begin, *ids[i : i + WINDOW]] for i in range(0, len(ids), WINDOW)]
    windows.sort(key=len)
    nats, training = 0.0, model.training
    model.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):  # each length would be compiled
        for i in range(0, len(windows), 32):
            part = windows[i : i + 32]
            rows = torch.full((len(part), len(part[-1])), -100, device=device)
            for row, ids in zip(rows, part, strict=True):
                row[: len(ids)] = torch.tensor(ids)
            logits = model(rows.clamp(min=PAD)).logits  # padding is on the right, where attention does not see it
            nats += torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="sum"
            ).item()
    model.train(training)
    return nats / math.log(2) / sum(len(document.encode()) for document in documents)


def learning_rate_share(step: int, recipe: Recipe) -> float:
    """Return the share of the learning rate at a step. It rises linearly during warm-up, then falls linearly to 0."""
    rise = max(1, round(recipe.warmup * recipe.steps))
    return min((step + 1) / rise, (recipe.steps - step) / max(1, recipe.steps - rise))


def fit(
    model: "PreTrainedModel", recipe: Recipe, documents: np.ndarray, pairs: np.ndarray | None, held_out=None
) -> list[dict]:
    """Train the model in place and return its curve: step, tokens, seconds, loss and held-out bits per byte.

    Args:
        documents, pairs: token ids of both kinds of text.
        held_out: function without arguments that returns the held-out loss. It is called ten times.

    Raises:
        InputError: the loss is not finite.
    """
    import torch
    from tqdm import tqdm

    device = next(model.parameters()).device.type
    torch.manual_seed(recipe.seed)
    rows = max(2, recipe.batch_tokens // recipe.context)
    paired = round(recipe.pairs * rows) if pairs is not None else 0
    length = recipe.context + 1
    plain = Rows(documents, length, device, False, recipe.seed)
    edited = Rows(pairs, length, device, True, recipe.seed + 1) if paired else None
    if device == "cuda":
        for layer in model.model.layers:
            layer.compile()
    cross_entropy = torch.compile(_cross_entropy, disable=device != "cuda")
    learning = list(model.parameters())
    matrices, vectors = [p for p in learning if p.ndim > 1], [p for p in learning if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, recipe.learning_rate, betas=(0.9, 0.95), fused=device == "cuda")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, recipe))
    curve, begun, every = [], time.perf_counter(), max(1, recipe.steps // 10)
    model.train()
    with tqdm(range(1, recipe.steps + 1), desc="pre-training", mininterval=1) as bar:
        for step in bar:
            ids = plain.draw(rows - paired)
            if edited:
                ids = torch.cat([edited.draw(paired), ids])
            with torch.autocast(device, torch.bfloat16):
                hidden = model.model(ids[:, :-1]).last_hidden_state
                loss = cross_entropy(hidden.flatten(0, 1), model.lm_head.weight, ids[:, 1:].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if step == 1 or step % every == 0 or step == recipe.steps:
                point = {"step": step, "tokens": step * rows * recipe.context, "loss": round(loss.item(), 4)}
                if not math.isfinite(point["loss"]):
                    raise InputError(f"the loss is {point['loss']} at step {step}; lower the learning rate")
                point["seconds"] = round(time.perf_counter() - begun, 1)
                if held_out and step > 1:
                    point["bits_per_byte"] = round(held_out(), 4)
                curve.append(point)
                bar.set_postfix({k: v for k, v in point.items() if k in ("loss", "bits_per_byte")})
    return curve

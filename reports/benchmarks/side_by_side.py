"""Many fine-tunings of one small model as one batch, which makes hundreds of runs affordable on one GPU.

Every run has its own adapters (or its own copy of all weights), head, batch order, learning rate and clipped norm, so
that no run affects another. The runs differ from those of `irtuning train` in two ways: every linear map has an
adapter, and at each step the batches of all runs have the same rank in length.
"""

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch

from irtuning.corpora.base import Corpus
from irtuning.models.prompts import encode

LENGTH, BATCH, RANK, GROUP = 160, 16, 16, 25  # GROUP: number of batches that are sorted by length together


@dataclass(frozen=True)
class Plan:
    """Settings of one run."""

    corpus: Corpus
    learning_rate: float
    class_weights: str
    seed: int


class Lora(torch.nn.Module):
    """A frozen linear map that all runs share, with one adapter per run."""

    def __init__(self, linear, seeds):
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().bfloat16())
        wide, narrow = linear.weight.shape
        bound = 1 / math.sqrt(narrow)
        self.a = torch.nn.Parameter(_drawn(seeds, lambda: torch.empty(narrow, RANK).uniform_(-bound, bound)))
        self.b = torch.nn.Parameter(torch.zeros(len(seeds), RANK, wide, device=self.a.device))

    def forward(self, x):
        """Return the output for x, shape (runs x batch, length, width)."""
        low = torch.bmm(x.reshape(len(self.a), -1, x.shape[-1]), self.a.to(x.dtype))
        whole = torch.nn.functional.linear(x, self.weight)
        out = torch.baddbmm(whole.view(len(self.a), -1, whole.shape[-1]), low, self.b.to(x.dtype), alpha=2.0)
        return out.view(whole.shape)


class Linear(torch.nn.Module):
    """One linear map per run."""

    def __init__(self, linear, seeds):
        super().__init__()
        self.weight = torch.nn.Parameter(linear.weight.detach().T.expand(len(seeds), -1, -1).contiguous())

    def forward(self, x):
        """Return the output for x, shape (runs x batch, length, width)."""
        out = torch.bmm(x.reshape(len(self.weight), -1, x.shape[-1]), self.weight.to(x.dtype))
        return out.view(*x.shape[:-1], -1)


class Norm(torch.nn.Module):
    """One root-mean-square norm per run."""

    def __init__(self, norm, seeds):
        super().__init__()
        self.epsilon = norm.variance_epsilon
        self.weight = torch.nn.Parameter(norm.weight.detach().expand(len(seeds), 1, -1).contiguous())

    def forward(self, x):
        """Return x with each run's norm applied, shape (runs x batch, length, width)."""
        rows = x.float()
        rows = rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + self.epsilon)
        return (rows.view(len(self.weight), -1, x.shape[-1]) * self.weight).to(x.dtype).view(x.shape)


class Embedding(torch.nn.Module):
    """One embedding table per run."""

    def __init__(self, table, seeds):
        super().__init__()
        self.weight = torch.nn.Parameter(table.weight.detach().expand(len(seeds), -1, -1).contiguous())
        self.register_buffer(
            "first", torch.arange(len(seeds), device=table.weight.device)[:, None] * table.num_embeddings
        )

    def forward(self, ids):
        """Return the embeddings of token ids, shape (runs x batch, length)."""
        places = (ids.reshape(len(self.weight), -1) + self.first).view(ids.shape)
        return torch.nn.functional.embedding(places, self.weight.flatten(0, 1)).bfloat16()


class Split:
    """One split of every run: token ids (runs, examples, LENGTH), lengths and labels (runs, examples)."""

    def __init__(self, plans, split, tokenizer, device):
        encoded = {
            id(p.corpus): encode(p.corpus.split(split), tokenizer, p.corpus.labels, "pair", LENGTH) for p in plans
        }
        rows = [encoded[id(p.corpus)] for p in plans]
        shape = len(plans), max(map(len, rows))
        ids, lengths, labels = np.zeros((*shape, LENGTH), np.int64), np.ones(shape, np.int64), np.full(shape, -100)
        for run, plan in enumerate(plans):
            for i, (row, revision) in enumerate(zip(rows[run], plan.corpus.split(split), strict=True)):
                ids[run, i, : len(row)], lengths[run, i] = row, len(row)
                labels[run, i] = plan.corpus.labels.index(revision.intention)
        self.host_lengths, self.sizes = lengths, [len(r) for r in rows]
        self.ids, self.lengths, self.labels = (torch.from_numpy(a).to(device) for a in (ids, lengths, labels))
        self.each = torch.arange(len(plans), device=device)[:, None]

    def batch(self, places: np.ndarray):
        """Return ids (cut to the longest), lengths and labels of the examples at `places`, shape (runs, rows)."""
        longest = int(np.take_along_axis(self.host_lengths, places, 1).max())
        at = torch.from_numpy(places).to(self.ids.device, non_blocking=True)
        ids = self.ids[self.each, at][..., : -(-longest // 8) * 8]
        return ids, self.lengths[self.each, at], self.labels[self.each, at]


def fine_tune(model, tokenizer, plans: list[Plan], steps: int, *, full: bool) -> list[list[str]]:
    """Train every plan for `steps` on a copy of a causal language model. Return the answers of each on validation."""
    device = next(model.parameters()).device
    seeds, most = [p.seed for p in plans], max(len(p.corpus.labels) for p in plans)
    body = copy.deepcopy(model.model).eval().requires_grad_(False)
    body = _widened(body if full else body.bfloat16(), seeds, full)
    width = body.config.hidden_size
    head = torch.nn.Parameter(_drawn(seeds, lambda: torch.randn(width, most) * 0.02).to(device))
    learning = [*(p for p in body.parameters() if p.requires_grad), head]
    train, validation = Split(plans, "train", tokenizer, device), Split(plans, "validation", tokenizer, device)
    weights, beyond = _class_weights(plans, most, device)
    orders = _orders(plans, train, steps)

    def logits(ids, lengths):
        hidden = body(ids.flatten(0, 1), use_cache=False).last_hidden_state
        hidden = hidden[torch.arange(len(hidden), device=device), lengths.flatten() - 1]
        return torch.bmm(hidden.view(len(plans), -1, width).float(), head) + beyond[:, None]

    rates = torch.tensor([p.learning_rate for p in plans], device=device)
    first, second = ([torch.zeros_like(p) for p in learning] for _ in range(2))
    warm = max(1, steps // 10)
    for step in range(1, steps + 1):
        ids, lengths, labels = train.batch(orders[:, step - 1])
        losses = torch.nn.functional.cross_entropy(
            logits(ids, lengths).flatten(0, 1), labels.flatten(), reduction="none"
        ).view(len(plans), -1)
        weight = weights.gather(1, labels)
        ((losses * weight).sum(1) / weight.sum(1)).sum().backward()
        share = min(step / warm, (steps - step + 1) / (steps - warm))
        _adam(learning, first, second, rates * share, step)
    return _answers(plans, validation, logits)


def _widened(body, seeds, full):
    kinds = {"Linear": Linear if full else Lora} | ({"LlamaRMSNorm": Norm, "Embedding": Embedding} if full else {})
    for module in list(body.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ in kinds:
                setattr(module, name, kinds[type(child).__name__](child, seeds).to(child.weight.device))
    return body


def _drawn(seeds, draw):
    """Return a stack of one tensor per run, each drawn with the seed of the run."""
    drawn = []
    for seed in seeds:
        torch.manual_seed(seed)
        drawn.append(draw())
    return torch.stack(drawn)


def _class_weights(plans, most, device):
    """Return the class weights, and what to add to the logits to exclude classes that a corpus does not have."""
    weights, beyond = np.zeros((len(plans), most), np.float32), np.full((len(plans), most), -1e9, np.float32)
    for run, plan in enumerate(plans):
        counts = np.array([plan.corpus.counts()["train"][label] for label in plan.corpus.labels])
        balanced = counts.sum() / (len(counts) * counts)
        weights[run, : len(counts)] = balanced if plan.class_weights == "balanced" else 1.0
        beyond[run, : len(counts)] = 0.0
    return torch.from_numpy(weights).to(device), torch.from_numpy(beyond).to(device)


def _orders(plans, train, steps):
    """Return the examples of all steps, shape (runs, steps, BATCH). Batches of a step have the same length rank."""
    groups, shared = -(-steps // GROUP), np.random.default_rng(0)
    ranks = [shared.permutation(GROUP) for _ in range(groups)]
    orders = []
    for run, plan in enumerate(plans):
        rng, order = np.random.default_rng(plan.seed), []
        while len(order) < groups * GROUP * BATCH:
            order += rng.permutation(train.sizes[run]).tolist()
        parts = np.array(order[: groups * GROUP * BATCH]).reshape(groups, GROUP * BATCH)
        parts = [part[np.argsort(train.host_lengths[run, part], kind="stable")] for part in parts]
        orders.append(np.concatenate([p.reshape(GROUP, BATCH)[r] for p, r in zip(parts, ranks, strict=True)])[:steps])
    return np.array(orders)


@torch.no_grad()
def _adam(learning, first, second, rates, step):
    """Do a step of Adam without weight decay. Each run has its own rate and has its gradient clipped to norm 1."""
    norm = torch.stack([p.grad.flatten(1).square().sum(1) for p in learning]).sum(0).sqrt()
    clip = (1 / (norm + 1e-6)).clamp(max=1)
    grown = 1 / math.sqrt(1 - 0.999**step)
    for p, m, v in zip(learning, first, second, strict=True):
        shape = (-1, *[1] * (p.ndim - 1))
        gradient = p.grad.mul_(clip.view(shape))
        m.lerp_(gradient, 0.1)
        v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        torch.mul(v.sqrt().mul_(grown).add_(1e-8).reciprocal_(), m, out=gradient)
        p.sub_(gradient.mul_((rates / (1 - 0.9**step)).view(shape)))
        p.grad = None


@torch.no_grad()
def _answers(plans, validation, logits):
    order = np.argsort(validation.host_lengths, axis=1, kind="stable")
    found = np.zeros_like(order)
    for i in range(0, order.shape[1], 32):
        places = order[:, i : i + 32]
        ids, lengths, _ = validation.batch(places)
        np.put_along_axis(found, places, logits(ids, lengths).argmax(-1).cpu().numpy(), 1)
    return [[p.corpus.labels[k] for k in row[:n]] for p, row, n in zip(plans, found, validation.sizes, strict=True)]

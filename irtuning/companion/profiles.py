"""Profiles: what each one runs, and what it needs from the machine."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from irtuning.corpora.sources import CORPORA, find
from irtuning.errors import InputError, unknown
from irtuning.method.registry import METHODS

BASELINES = ["full", "ir", "rst", "ist", "lisa-adapters", "last-k", "random-counts"]
VARIANT = "ir-upper:horizon=5"  # the setting that the experiment `variant` chose
LAST = ["last-k:share=0.5", "last-k:share=0.33"]
STUDY_METHODS = ["full", "ir", "ir:variant=exact", VARIANT, *BASELINES[2:], *LAST, "middle-k", "full-ft"]
EXPERIMENTS = ["methods", "own-budget", "ablations", "adapters", "sizes"]
STUDY_EXPERIMENTS = ["variant", "rates", "methods", "own-budget", *(f"{name}@argrewrite" for name in EXPERIMENTS[2:])]
RATE_GRID = {"adapters": (5e-4, 1e-3, 2e-3), "parameters": (1.5e-4, 3e-4, 6e-4)}  # 0.5, 1 and 2 times mini's own rate
RATE_SEED = 161  # used by no other run of the study
# learning rates that the experiment `rates` chose; a method that is not listed uses the model's own
RATES = dict.fromkeys([*STUDY_METHODS, "ir-upper"], 0.002) | {"full-ft": 0.00015}
RATES |= dict.fromkeys(["ir", "lisa-adapters", "last-k", "middle-k"], 0.001)
PARTS = ("variant=exact", "splits=2", "score=l2", "refresh_every=5", "refresh_every=20", "smoothing=0.5")
ABLATIONS = ["ir", *(f"ir:{part}" for part in PARTS), "ir-weight", "ir-cosine:score=token"]
VARIANTS = ["ir", *(f"ir-upper{change}" for change in ("", ":floor=0.33", ":floor=0.67", ":horizon=5", ":horizon=20"))]
QUICK = {
    "corpora": ["synthetic"], "models": ["mini"], "methods": BASELINES, "experiments": ["methods"], "folds": [0],
    # always on the CPU, so that results do not depend on a GPU; a high rate makes up for the few steps
    "seeds": 2, "max_steps": 80, "settings": {"batch_size": 6, "eval_every": 40, "device": "cpu", "learning_rate": 2e-3,
                                              "rates": dict.fromkeys(["lisa", "full-ft"], 3e-4)}}  # fmt: skip
LARGE = QUICK | {"seeds": 3, "max_steps": None, "settings": {}}
PROFILES: dict[str, dict] = {
    "quick": QUICK,
    "study": QUICK | {
        "corpora": ["argrewrite", "arxivedits"], "methods": STUDY_METHODS, "experiments": STUDY_EXPERIMENTS,
        "folds": [0, 1, 2, 3, 4], "max_steps": 400,
        # The class weights were chosen on the validation splits; see the model card.
        "settings": {"class_weights": "balanced", "eval_every": 100, "score_test": True, "rates": RATES}},
    "small": LARGE | {"corpora": ["iterater"], "models": ["qwen3-0.6b"], "experiments": EXPERIMENTS},
    "paper": LARGE | {
        "models": ["llama-3.1-8b", "mistral-7b", "deepseek-r1-llama-8b", "llama-2-13b", "qwen3-8b", "phi-2"],
        "corpora": ["iterater", "argrevision"], "experiments": ["methods", "own-budget", "adapters"],
        "methods": ["full", "ir", "ist", "rst", "lisa", "full-ft"]}}  # fmt: skip
GPU_GIB = {"small": 16, "paper": 80}  # memory of the GPU that these profiles were made for
RUN_BY_US = {"quick": "yes", "study": "yes, on two NVIDIA H200s", "small": "no", "paper": "no"}


def profile_parameters(profile: str, data=None, output=None, changes: Mapping | None = None) -> dict:
    """Return a profile's arguments for `Companion`. `changes` make it `NAME-changed`. InputError for bad names."""
    if profile not in PROFILES:
        raise unknown("profile", profile, PROFILES)
    parameters, changes = PROFILES[profile], dict(changes or {})
    for name, value in changes.items():
        if name not in parameters:
            raise unknown("parameter", name, parameters)
        if None not in (value, parameters[name]) and type(value) is not type(parameters[name]):
            raise InputError(f"{name}={json.dumps(value)} must have the same type as {json.dumps(parameters[name])}")
    folders = {name: path and str(Path(path).resolve()) for name, path in (("data", data), ("output", output))}
    return {"profile": f"{profile}-changed" if changes else profile} | folders | parameters | changes


def comparisons(experiment: str, methods: Sequence[str]) -> list[dict]:
    """Return the arguments of `run_comparison` for each comparison of an experiment. InputError if it is unknown."""
    papers = [m for m in ("rst", "lisa-adapters", "lisa") if m in (*methods, "lisa")]
    on_validation = {"folds": [0], "seeds": [RATE_SEED], "score_test": False, "rates": None}
    rated = ["ir-upper" if m == VARIANT else m for m in methods]  # the rates were chosen before our variant's setting
    rates = [{m: RATE_GRID[METHODS[m.split(":")[0]].scope][i] for m in rated} for i in range(3)]
    four = [m for m in ("full", "ir", "last-k", "random-counts") if m in methods]
    experiments = {
        "variant": [{"methods": VARIANTS} | on_validation],
        "rates": [on_validation | {"methods": rated, "rates": chosen} for chosen in rates],
        "methods": [{"methods": list(methods)}],
        "own-budget": [{"methods": ["full", "ir", *papers], "budget": "own"}],
        "ablations": [{"methods": ABLATIONS}, {"methods": ["ir"], "head": "frozen"}],
        "adapters": [{"methods": ["full", "ir"], "adapter": adapter} for adapter in ("lora", "dora", "bottleneck")],
        "sizes": [{"methods": four, "train_share": share} for share in (0.05, 0.1, 0.25, 0.5, 1.0)]}
    if experiment not in experiments:
        raise unknown("experiment", experiment, experiments)
    return experiments[experiment]


def missing(parameters: Mapping) -> list[str]:
    """Return a sentence for each thing that a profile needs and this machine lacks, without loading anything."""
    import torch
    files = [name for name in parameters["corpora"] if name in CORPORA and CORPORA[name].patterns]
    absent = [name for name in files if find(name, parameters["data"]) is None]
    problems = [f"corpus {name} is not on this machine; it comes from {CORPORA[name].home}" for name in absent]
    needed = GPU_GIB.get(parameters["profile"], 0)
    present = torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0
    if present < needed * 0.9:
        problems.append(f"it needs a GPU of {needed} GiB, but this machine has {present:.0f} GiB of GPU memory")
    offline = "its models come from the Hugging Face Hub, and HF_HUB_OFFLINE is set"
    return problems + [offline] * bool(needed and os.environ.get("HF_HUB_OFFLINE"))

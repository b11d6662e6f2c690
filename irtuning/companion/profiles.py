"""What each profile runs: the notebooks' parameters, the panels they are drawn from, and what a machine must offer."""

import os
import shutil
from collections.abc import Mapping, Sequence

from irtuning.errors import unknown
from irtuning.method.registry import METHODS

BASELINES = ["full", "ir", "rst", "ist", "lisa-adapters", "last-k", "random-counts"]
VARIANT = "ir-upper:horizon=5"  # what the variant panel chose
STUDY_METHODS = ["full", "ir", "ir:variant=exact", VARIANT, *BASELINES[2:], "last-k:share=0.5", "last-k:share=0.33", "middle-k", "full-ft"]
PANELS = ["methods", "own-budget", "ablations", "adapters", "sizes"]  # PANEL@CORPUS: on that corpus alone
STUDY_PANELS = ["variant", "rates", "methods", "own-budget", *(f"{panel}@argrewrite" for panel in PANELS[2:])]
RATE_GRID = {"adapters": (5e-4, 1e-3, 2e-3), "parameters": (1.5e-4, 3e-4, 6e-4)}  # half, once and twice mini's own
RATE_SEED = 161  # no other run of the study has it
# what the rates panel chose, by method; a method not named has the model's own
RATES = {
    "full": 0.002, "ir": 0.001, "ir:variant=exact": 0.002, "ir-upper": 0.002, "rst": 0.002, "ist": 0.002,
    "lisa-adapters": 0.001, "last-k": 0.001, "random-counts": 0.002, "last-k:share=0.5": 0.002,
    "last-k:share=0.33": 0.002, "middle-k": 0.001, "full-ft": 0.00015, "ir-upper:horizon=5": 0.002,
}  # fmt: skip
PAPER_MODELS = ["llama-3.1-8b", "mistral-7b", "deepseek-r1-llama-8b", "llama-2-13b", "qwen3-8b", "phi-2"]
ABLATIONS = [
    "ir", "ir:variant=exact", "ir:splits=2", "ir:score=l2", "ir:refresh_every=5", "ir:refresh_every=20",
    "ir:smoothing=0.5", "ir-weight", "ir-cosine:score=token",
]  # fmt: skip
VARIANTS = ["ir", "ir-upper", *(f"ir-upper:{change}" for change in ("floor=0.33", "floor=0.67", "horizon=5", "horizon=20"))]
ADAPTERS = ("lora", "dora", "bottleneck")
TRAIN_SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)

QUICK = {
    "profile": "quick",
    "corpora": ["synthetic"],
    "data": None,
    "output": None,
    "models": ["mini"],
    "methods": BASELINES,
    "panels": ["methods"],
    "folds": [0],
    "seeds": 2,
    "max_steps": 120,
    # the CPU everywhere, so that results do not depend on a GPU; an evaluation costs as much as ten steps
    "settings": {"batch_size": 6, "eval_every": 40, "device": "cpu"},
}
PROFILES: dict[str, dict] = {
    "quick": QUICK,
    "study": QUICK | {
        "profile": "study",
        "corpora": ["argrewrite", "arxivedits"],
        "methods": STUDY_METHODS,
        "panels": STUDY_PANELS,
        "folds": [0, 1, 2, 3, 4],
        "max_steps": 400,
        # the weights were chosen on validation, see the model card
        "settings": {"class_weights": "balanced", "eval_every": 100, "score_test": True, "rates": RATES},
    },
    "small": QUICK | {
        "profile": "small",
        "corpora": ["iterater"],
        "models": ["qwen3-0.6b"],
        "methods": BASELINES,
        "panels": PANELS,
        "seeds": 3,
        "max_steps": None,
        "settings": {},
    },
    "paper": QUICK | {
        "profile": "paper",
        "corpora": ["iterater", "argrevision"],
        "models": PAPER_MODELS,
        "methods": ["full", "ir", "ist", "rst", "lisa", "full-ft"],
        "panels": ["methods", "own-budget", "adapters"],
        "seeds": 3,
        "max_steps": None,
        "settings": {},
    },
}  # fmt: skip
GPU_GIB = {"small": 16, "paper": 80}  # what these profiles were made for
RUN_BY_US = {"quick": "yes", "study": "yes, on two NVIDIA H200s", "small": "no", "paper": "no"}


def profile_parameters(name: str) -> dict:
    """The parameters of a profile by name.

    Raises:
        InputError: no such profile.
    """
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    return dict(PROFILES[name])


def comparisons(panel: str, methods: Sequence[str]) -> list[dict]:
    """The comparisons a panel is made of, each as arguments of `run_comparison`.

    `variant`: settings of ours, one run each, without a look at the test split. `rates`: likewise, each method at
    multiples of the model's learning rate. `methods`: equal layer budgets. `own-budget`: the papers' own. `ablations`:
    one part of IR-Tuning changed at a time. `adapters`: Full PEFT and IR-Tuning over each adapter. `sizes`: four methods
    on shares of the training split.

    Raises:
        InputError: an unknown panel.
    """
    papers = [m for m in ("rst", "lisa-adapters", "lisa") if m in (*methods, "lisa")]
    look = {"folds": [0], "seeds": [RATE_SEED], "score_test": False, "rates": None}
    rated = ["ir-upper" if method == VARIANT else method for method in methods]  # as it was before its setting was chosen
    scopes = {method: METHODS[method.split(":")[0]].scope for method in rated}
    four = [m for m in ("full", "ir", "last-k", "random-counts") if m in methods]
    panels = {
        "variant": [look | {"methods": VARIANTS}],
        "rates": [look | {"methods": rated, "rates": {m: RATE_GRID[scope][i] for m, scope in scopes.items()}} for i in range(3)],
        "methods": [{"methods": list(methods)}],
        "own-budget": [{"methods": ["full", "ir", *papers], "budget": "own"}],
        "ablations": [{"methods": ABLATIONS}, {"methods": ["ir"], "head": "frozen"}],
        "adapters": [{"methods": ["full", "ir"], "adapter": adapter} for adapter in ADAPTERS],
        "sizes": [{"methods": four, "train_share": share} for share in TRAIN_SHARES],
    }
    if panel not in panels:
        raise unknown("panel", panel, panels)
    return panels[panel]


def missing(parameters: Mapping) -> list[str]:
    """What a profile needs and this machine lacks, a sentence each; nothing is loaded or downloaded."""
    from irtuning.corpora.sources import CORPORA, find

    problems = []
    for corpus in parameters["corpora"]:
        if corpus in CORPORA and CORPORA[corpus].patterns and find(corpus, parameters["data"]) is None:
            problems.append(f"corpus {corpus} is not on this machine; it comes from {CORPORA[corpus].home}")
    needed, found = GPU_GIB.get(parameters["profile"], 0), gpu_gib()
    if found < needed * 0.9:
        problems.append(
            f"it needs a GPU of {needed} GiB, and this machine has {f'{found:.0f} GiB' if found else 'none'}"
        )
    if os.environ.get("HF_HUB_OFFLINE") and needed:
        problems.append("its models come from the Hugging Face Hub, and HF_HUB_OFFLINE is set")
    return problems


def gpu_gib() -> float:
    """Memory of the first GPU in GiB, 0 where there is none."""
    if shutil.which("nvidia-smi") is None:
        return 0.0
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30 if torch.cuda.is_available() else 0.0

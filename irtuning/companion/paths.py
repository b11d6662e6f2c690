"""Folders of the repository and of what a profile writes."""

import hashlib
import sysconfig
from pathlib import Path

from irtuning.errors import InputError

PACKAGE = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (PACKAGE.parent / "pyproject.toml").exists()  # a wheel installs notebooks and records beside the package
REPOSITORY = PACKAGE.parent if IN_CHECKOUT else Path(sysconfig.get_path("data"), "share", "irtuning")
NOTEBOOKS = ("01_data_exploration", "02_ir_tuning_versus_baselines", "03_convergence_and_gpu_memory",
             "04_layer_importance", "05_the_study", "06_your_own_revisions")  # fmt: skip
DECISIVE = ["method/*.py", "models/*.py", "models/*.json", "training/*.py", "mini/*.safetensors", "mini/tokenizer.json"]


def training_fingerprint() -> str:
    """Return eight hexadecimal digits that change with the code of a run and with the embedded weights."""
    paths = [path for pattern in DECISIVE for path in sorted(PACKAGE.glob(pattern))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]


def notebook_path(name: str) -> Path:
    """Return the path of a notebook. InputError if it was not installed with the package."""
    path = REPOSITORY / "notebooks" / f"{name}.ipynb"
    if not path.exists():
        raise InputError(f"{path} does not exist: clone the repository and install it there with `pip install -e .`")
    return path


class Folders:
    """Folders for a profile's figures, reports and recorded runs, in `output` or else in the repository."""
    def __init__(self, profile: str, output: str | Path | None = None):
        self.profile, root = profile, Path(output or REPOSITORY)
        self.figures, self.reports, self.runs = (root / kind / profile for kind in ("figures", "reports", "runs"))

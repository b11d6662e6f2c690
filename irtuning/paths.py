"""Where everything lies: the one file that names folders."""

from dataclasses import dataclass
from pathlib import Path

from irtuning.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = (
    "01_data_exploration",
    "02_ir_tuning_versus_baselines",
    "03_convergence_and_gpu_memory",
    "04_layer_importance",
    "05_the_study",
)


def notebook_path(name: str) -> Path:
    """A notebook of this repository.

    Raises:
        InputError: the package was installed without its checkout.
    """
    path = REPOSITORY / "notebooks" / f"{name}.ipynb"
    if not path.exists():
        raise InputError(f"no {path}: the notebooks lie in the repository; install with `pip install -e .` there")
    return path


@dataclass(frozen=True)
class Places:
    """Where a profile's figures, reports and cached runs go: under `output`, or in the repository."""

    profile: str
    output: Path | None = None

    @property
    def figures(self) -> Path:
        return (self.output or REPOSITORY) / "figures" / self.profile

    @property
    def reports(self) -> Path:
        return (self.output or REPOSITORY) / "reports" / self.profile

    @property
    def runs(self) -> Path:
        return (self.output or REPOSITORY) / "runs" / self.profile

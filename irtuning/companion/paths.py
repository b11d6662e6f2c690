"""Where everything lies: the one file that names folders."""

from pathlib import Path

from irtuning.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
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


class Places:
    """Where a profile's figures, reports and cached runs go: under `output`, or in the repository."""

    def __init__(self, profile: str, output: Path | None = None):
        kinds = ("figures", "reports", "runs")
        self.profile = profile
        self.figures, self.reports, self.runs = ((output or REPOSITORY) / kind / profile for kind in kinds)

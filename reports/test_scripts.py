"""The scripts beside the records they made can still be imported."""

import subprocess
import sys

from irtuning.companion.paths import REPOSITORY

IMPORT_ALL = """
import runpy, sys, traceback
failed = 0
for path in sys.argv[1:]:
    sys.path.insert(0, path.rpartition("/")[0])
    try:
        runpy.run_path(path, run_name="imported")
    except Exception:
        failed += 1
        print(path, traceback.format_exc(), file=sys.stderr)
    sys.path.pop(0)
sys.exit(failed)
"""


def test_every_script_imports():
    scripts = sorted(str(p) for p in (REPOSITORY / "reports").rglob("*.py") if not p.name.startswith("test_"))
    assert len(scripts) > 8
    run = subprocess.run([sys.executable, "-c", IMPORT_ALL, *scripts], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr

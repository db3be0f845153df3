"""The environments that contenders run in, made when first needed and again when their requirements change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv-bench"


class MissingPythonError(Exception):
    """A contender cannot be measured on this machine, for want of the Python that its packages were built for."""


def interpreter(requirements: str | None, python: str | None) -> Path:
    """A Python that can import what the requirements file lists; this very one when there is no such file.

    ``python`` names the one version of Python that the requirements have wheels for, if there is one.
    """
    if requirements is None:
        return Path(sys.executable)
    wanted = (ROOT / "benchmarks" / requirements).read_text()
    home = FOLDER / Path(requirements).stem.removeprefix("requirements-")
    inside = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    made_from = home / "made-from.txt"
    if not made_from.exists() or made_from.read_text() != wanted:
        base = _base(python)
        print(f"making the environment {home.relative_to(ROOT)}", file=sys.stderr)
        subprocess.run([base, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run(
            [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements],
            check=True,
            cwd=ROOT / "benchmarks",
        )
        # Written last, so that an installation that failed is not taken for a finished one.
        made_from.write_text(wanted)
    return inside


def _base(python: str | None) -> str:
    if python is None or python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{python}")
    if found is None:
        raise MissingPythonError(f"needs python{python} on the path")
    return found

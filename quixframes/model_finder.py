"""A model by its name: ``module:function`` or ``path/to/file.py:function``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType

from quixframes.runner import Model

__all__ = ["UnableError", "find_model"]


class UnableError(Exception):
    """Starting the process again would end in the same way."""


def find_model(name: str) -> Model:
    """The function that ``module:function`` or ``path/to/file.py:function`` names.

    Raises:
        UnableError: there is none, or its module cannot be imported; the text says why, and where.
    """
    where, _, function = name.rpartition(":")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except OSError:
        raise  # of something that it wants to load: it may be there the next time
    except Exception as exc:
        frames = [frame for frame in traceback.extract_tb(exc.__traceback__) if "importlib" not in frame.filename]
        place = f", {frames[-1].filename}:{frames[-1].lineno}" if frames[-1].filename != __file__ else ""
        raise UnableError(f"model {name!r} cannot be imported: {type(exc).__name__}: {exc}{place}") from exc
    model = getattr(module, function, None)
    if not callable(model):
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise UnableError(
            f"model {name!r}: {where} has no function {function!r} (it has: {', '.join(there) or 'none'})"
        )
    found: Model = model
    return found


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModuleNotFoundError(f"there is no file {str(path)!r} in {os.getcwd()}")
    sys.path.insert(0, str(path.parent.resolve()))  # its neighbours can be imported, as from a script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module

"""What the package offers is what it says that it offers."""

from __future__ import annotations

import inspect

import pytest

import quixframes as qf


def test_everything_that_the_package_imports_is_exported() -> None:
    """``__init__`` has imports and ``__all__``, and they agree."""
    imported = {
        name
        for name, value in vars(qf).items()
        if not inspect.ismodule(value) and getattr(value, "__module__", "").startswith("quixframes.")
    }
    assert imported | {"__version__"} == set(qf.__all__)


def test_exports_are_sorted() -> None:
    assert qf.__all__ == sorted(qf.__all__)


@pytest.mark.parametrize("name", [name for name in qf.__all__ if name != "__version__"])
def test_everything_exported_says_what_it_is(name: str) -> None:
    """The docstring is its own, not one that it inherits or that a dataclass is given."""
    value = getattr(qf, name)
    own = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
    assert own.strip()
    assert not own.startswith(f"{name}(")


def members() -> list[str]:
    """The public methods and properties of the exported classes, as "Class.member"."""
    return sorted(
        f"{name}.{member}"
        for name in qf.__all__
        if inspect.isclass(value := getattr(qf, name))
        for member, what in vars(value).items()
        if not member.startswith("_") and (inspect.isroutine(what) or isinstance(what, property | classmethod))
    )


@pytest.mark.parametrize("path", members())
def test_every_public_method_and_property_says_what_it_does(path: str) -> None:
    name, _, member = path.partition(".")
    assert (inspect.getdoc(inspect.getattr_static(getattr(qf, name), member)) or "").strip()


def test_the_version_is_that_of_the_package() -> None:
    assert qf.__version__.count(".") >= 1

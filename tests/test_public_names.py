"""What applications import: it is there, it is documented, and its errors travel."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import pickle
import re
from collections.abc import Iterator
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import pytest

import asynctaskd
from asynctaskd import errors

PACKAGE = Path(asynctaskd.__file__).parent
# Templates become files of others, which document what they like.
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "skeleton" not in path.parts)
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
NAMES = [name for name in asynctaskd.__all__ if name != "__version__"]
ERRORS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == errors.__name__
}


def example(kind: type[Exception]) -> Exception:
    """An error as it is raised."""
    if issubclass(kind, errors.TaskFailedError):
        return kind(task_id=7, name="x", attempts=2, max_attempts=3, last_error="no")
    if issubclass(kind, errors.TaskError):
        return kind("no", task_id=7)
    if issubclass(kind, errors.SnoozeTask):
        return kind("90s")
    return kind("no")


def drawn() -> dict[str, str | None]:
    """The tree in the docstring of `errors`: each class and the one it hangs from."""
    found: dict[str, str | None] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        entry = re.fullmatch(r"((?:│   |    )*(?:├── |└── )?)([A-Z][A-Za-z]+)(?: \(.*?\))?(?:  .*)?", line)
        if entry is not None:
            depth = len(entry[1]) // 4
            above[depth:] = [entry[2]]
            found[entry[2]] = above[depth - 1] if depth else None
    return found


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """The public classes, functions and methods below a node; what a function defines inside is its own."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Definition):
            if not child.name.startswith("_"):
                yield prefix + child.name, child
                if isinstance(child, ast.ClassDef):
                    yield from public(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.If | ast.Try | ast.With):
            yield from public(child, prefix)


def test_the_names_are_sorted_and_each_is_there_once() -> None:
    assert asynctaskd.__all__ == sorted(set(asynctaskd.__all__))


@pytest.mark.parametrize("name", asynctaskd.__all__)
def test_a_public_name_can_be_imported(name: str) -> None:
    assert getattr(importlib.import_module("asynctaskd"), name) is not None


def test_what_an_application_needs_is_one_import() -> None:
    from asynctaskd import (
        App,
        Client,
        FatalTaskError,
        RetryPolicy,
        RetryQuietlyError,
        SnoozeTask,
        TaskContext,
        TaskFailure,
        TaskRequest,
    )

    handled = (FatalTaskError, RetryQuietlyError, SnoozeTask)
    assert all(issubclass(kind, Exception) for kind in handled)
    assert all(
        isinstance(kind, type) for kind in (App, Client, RetryPolicy, TaskContext, TaskFailure, TaskRequest)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented_with_its_methods_and_properties(name: str) -> None:
    kind = getattr(asynctaskd, name)
    if inspect.isfunction(kind):
        assert (kind.__doc__ or "").strip(), name
        return
    assert (vars(kind).get("__doc__") or "").strip(), name
    assert not kind.__doc__.startswith(f"{name}("), "only what dataclass writes of itself"
    for attribute, value in vars(kind).items():
        function = getattr(value, "__func__", value)  # of a class or static method
        if not attribute.startswith("_") and (inspect.isroutine(function) or isinstance(function, property)):
            assert (inspect.getdoc(function) or "").strip(), f"{name}.{attribute}"


def test_every_error_is_exported() -> None:
    assert set(ERRORS) <= set(asynctaskd.__all__)
    assert all(getattr(asynctaskd, name) is kind for name, kind in ERRORS.items())


def test_every_exported_error_is_one_of_the_tree() -> None:
    exported = {
        name
        for name in NAMES
        if isinstance(kind := getattr(asynctaskd, name), type) and issubclass(kind, Exception)
    }
    assert exported == set(ERRORS)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    real = {name: kind.__base__.__name__ for name, kind in ERRORS.items() if kind.__base__ is not None}
    assert drawn() == {name: base if base in ERRORS else None for name, base in real.items()}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize(
    "travel", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))]
)
def test_an_error_survives_a_journey(name: str, travel) -> None:
    error = example(ERRORS[name])
    error.add_note("on the way")
    arrived = travel(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
    assert arrived.args == error.args


def test_what_an_error_carries_arrives_too() -> None:
    failed = pickle.loads(pickle.dumps(example(errors.TaskExpiredError)))
    assert (failed.task_id, failed.name, failed.attempts, failed.max_attempts, failed.last_error) == (
        7,
        "x",
        2,
        3,
        "no",
    )
    assert pickle.loads(pickle.dumps(errors.SnoozeTask("90s"))).delay == timedelta(seconds=90)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_and_what_is_public_in_it_is_documented(path: Path) -> None:
    module = ast.parse(path.read_text(encoding="utf8"))
    where = path.relative_to(PACKAGE).as_posix()
    undocumented = {name for name, node in public(module) if not ast.get_docstring(node)}
    assert ast.get_docstring(module), where
    assert [name for name in sorted(undocumented) if not is_documented(path, name)] == []


def is_documented(path: Path, name: str) -> bool:
    """Whether help() has words for it: an override inherits them, overloads have those of the last."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    found = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    for part in name.split("."):
        found = getattr(found, part)
    return bool((inspect.getdoc(found) or "").strip())


def test_the_package_says_that_it_is_typed() -> None:
    assert (files("asynctaskd") / "py.typed").is_file()

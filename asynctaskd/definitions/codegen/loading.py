"""A file's tasks as a registry, without writing its module."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from asynctaskd.definitions.codegen.module import write_module
from asynctaskd.definitions.declarations import Declarations
from asynctaskd.definitions.spec.spec import Spec

_NAME = "asynctaskd_generated"


def app_of(spec: Spec) -> Declarations:
    """A registry that knows the tasks, to read their payloads with; nothing carries them out."""
    module = _load(write_module(spec))
    app = Declarations()
    module.register(app, _nobody(module.Executor))
    return app


def _load(source: str) -> Any:
    module: Any = ModuleType(_NAME)
    sys.modules[_NAME] = module  # pydantic looks for the names of annotations there
    try:
        exec(compile(source, _NAME, "exec"), vars(module))  # noqa: S102  (it was written just now)
    finally:
        del sys.modules[_NAME]
    return module


def _nobody(executor: Any) -> Any:
    """An executor whose methods are there, and do nothing."""
    nobody: Any = type(executor)("Nobody", (executor,), {})
    nobody.__abstractmethods__ = frozenset()
    return nobody()

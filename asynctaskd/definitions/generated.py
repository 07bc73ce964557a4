"""What modules that `asynctaskd generate` writes are made of."""

from __future__ import annotations

import inspect
from abc import ABC
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from asynctaskd.definitions.signature import is_async
from asynctaskd.errors import InvalidDefinitionError


class ParamsModel(BaseModel):
    """The parameters of a task from tasks.yaml.

    A field is read by its own name and by the file's, and written by the file's.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True, validate_default=True)


class TaskExecutor(ABC):  # noqa: B024  (its subclasses have abstract methods)
    """What carries out the tasks of tasks.yaml: the base of a generated `Executor`."""

    @classmethod
    def check(cls, executor: object) -> None:
        """See that an executor has every method of this class, also where it doesn't inherit from it.

        Raises:
            InvalidDefinitionError: methods are missing, not async or take other arguments; all are named.
        """
        problems = [
            problem for name in sorted(cls.__abstractmethods__) for problem in cls._of(name, executor)
        ]
        if problems:
            raise InvalidDefinitionError(
                f"{type(executor).__qualname__} can't execute: {'; '.join(problems)}"
            )

    @classmethod
    def _of(cls, name: str, executor: object) -> Iterator[str]:
        method = getattr(executor, name, None)
        wanted = list(inspect.signature(getattr(cls, name)).parameters)[1:]
        if method is None:
            yield f"{name} is missing"
        elif not callable(method) or not is_async(method):
            yield f"{name} must be async"
        elif not _takes(method, wanted):
            yield f"{name} must take ({', '.join(wanted)})"


def _takes(method: object, arguments: list[str]) -> bool:
    try:
        inspect.signature(method).bind(*arguments)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True

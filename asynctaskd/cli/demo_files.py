"""The demo's work: the files of Python's standard library, in three groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from zlib import crc32

from asynctaskd import TaskRequest
from asynctaskd.cli.demo_app import SourceFile, index_file, source_files
from asynctaskd.errors import AsynctaskdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

WEIGHTS: Mapping[str, int] = {"packages": 5, "modules": 3, "extras": 1}
"""Group → weight; a task's group is the one label it carries."""

LATER_WEIGHTS: Mapping[str, int] = {"packages": 1, "modules": 2, "extras": 6}
"""The weights from the middle of the demo on."""

BATCH = 50
"""How many tasks are enqueued in one transaction."""

MISSING = "no_such_module.py"
"""A file that isn't there: the one task that is meant to fail for good."""

# What comes with the library and that few programs import. Many distributions leave the tests out, so the
# group is more than them.
_EXTRAS = frozenset({"encodings", "idlelib", "lib2to3", "pydoc_data", "turtledemo"})
_TESTS = frozenset({"test", "tests", "idle_test"})

_STUMBLES_EVERY = 40


class DemoFailedError(AsynctaskdError):
    """The demo couldn't go on.

    Attributes:
        log: the end of the workers' logs, where they may tell more; lines, or nothing.
    """

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True, slots=True)
class Work:
    """What will be enqueued.

    Attributes:
        batches: ordinary tasks, those of one transaction together, each a mixture of all groups.
        urgent: tasks of the strict lane, enqueued one by one while the others wait.
        stumbling: how many of them fail the first time.
    """

    batches: Sequence[Sequence[TaskRequest]]
    urgent: Sequence[TaskRequest]
    stumbling: int

    @property
    def files(self) -> int:
        """How many files there are; the missing one isn't counted."""
        return self.tasks - 1

    @property
    def tasks(self) -> int:
        """How many tasks there will be."""
        return sum(map(len, self.batches)) + len(self.urgent)

    @property
    def turning_point(self) -> int:
        """After how many ordinary claims the weights change; every group has tasks for as many again."""
        sizes = Counter(
            group for batch in self.batches for one in batch for group in one.options.labels or ()
        )
        return min(sum(WEIGHTS.values()) * sizes[group] // weight for group, weight in WEIGHTS.items()) // 2


def find_files(library: Path) -> list[str]:
    """The source files of the library, which holds some of every group.

    Raises:
        DemoFailedError: this Python came without its sources.
    """
    files = source_files(library)
    missing = set(WEIGHTS) - {group_of(file) for file in files}
    if missing:
        raise DemoFailedError(
            f"there is too little to index: {library} holds no sources of the group {min(missing)!r}; "
            "run the demo with a Python that brings its standard library as files"
        )
    return files


def group_of(file: str) -> str:
    """Which of the three groups a file belongs to."""
    folders = PurePosixPath(file).parts[:-1]
    if not folders:
        return "modules"
    return "extras" if folders[0] in _EXTRAS or not _TESTS.isdisjoint(folders) else "packages"


def is_urgent(file: str) -> bool:
    """Whether a file is the front door of a package, which is to be indexed before everything else."""
    path = PurePosixPath(file)
    return path.name == "__init__.py" and len(path.parts) == 2 and group_of(file) == "packages"


def plan(files: Iterable[str]) -> Work:
    """Decide for each file how it is enqueued; the same files always give the same plan."""
    # By checksum, so that the groups are well mixed and every transaction holds some of each.
    mixed = sorted([*files, MISSING], key=lambda file: crc32(file.encode()))
    ordinary = [file for file in mixed if not is_urgent(file)]
    stumbling = {*ordinary[::_STUMBLES_EVERY]} - {MISSING}
    return Work(
        batches=list(_batched(_request(file, stumbles=file in stumbling) for file in ordinary)),
        urgent=[_request(file).with_options(priority=1) for file in mixed if is_urgent(file)],
        stumbling=len(stumbling),
    )


def _request(file: str, *, stumbles: bool = False) -> TaskRequest:
    return TaskRequest(index_file.name, SourceFile(path=file, stumbles=stumbles), labels=[group_of(file)])


def _batched(requests: Iterable[TaskRequest]) -> Iterator[list[TaskRequest]]:
    rest = iter(requests)
    while batch := list(islice(rest, BATCH)):
        yield batch

"""The demo's application: its tasks index Python source files, one file a task.

Beside them stands one that takes much longer than anybody wants to wait, for the demo to cancel: it looks for
files that are alike, a task for each folder, below that of the folder above.

It is written to be read and to be copied from: everything an application needs is on this page. A worker
runs it with `asynctaskd run --app asynctaskd.cli.demo_app:app`.
"""

from __future__ import annotations

import ast
import asyncio
import sysconfig
import tokenize
from difflib import SequenceMatcher
from io import BytesIO
from itertools import product
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pydantic import BaseModel

from asynctaskd import App, RetryPolicy, TaskContext, TaskFailure

if TYPE_CHECKING:
    import asyncpg

LIBRARY = Path(sysconfig.get_path("stdlib"))

_NOT_THE_LIBRARY = frozenset({"site-packages", "dist-packages", "__pycache__"})

TABLES = """
CREATE TABLE asynctaskd_demo.modules (
    path text PRIMARY KEY,
    task_id bigint NOT NULL,
    lines integer NOT NULL,
    functions integer NOT NULL,
    classes integer NOT NULL,
    comments integer NOT NULL,
    is_valid boolean NOT NULL,
    times_indexed integer NOT NULL DEFAULT 1
);
CREATE TABLE asynctaskd_demo.unreadable_files (
    path text NOT NULL,
    task_id bigint PRIMARY KEY,
    attempts integer NOT NULL,
    error text NOT NULL
);
"""
"""The application's own tables. They may be in any schema of the database that holds the tasks."""

# A task may be run again after a crash, so what a handler writes is written such that twice does no harm.
# `times_indexed` is for the demo alone: it proves that thanks to ctx.transaction() twice didn't happen.
_SAVE = """
INSERT INTO asynctaskd_demo.modules (path, task_id, lines, functions, classes, comments, is_valid)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (path) DO UPDATE SET
    task_id = excluded.task_id, lines = excluded.lines, functions = excluded.functions,
    classes = excluded.classes, comments = excluded.comments, is_valid = excluded.is_valid,
    times_indexed = modules.times_indexed + 1
"""

_REMEMBER = """
INSERT INTO asynctaskd_demo.unreadable_files (path, task_id, attempts, error) VALUES ($1, $2, $3, $4)
"""

# CPython's parser isn't safe in threads: while two of them build trees, some end with "SystemError: AST
# constructor recursion depth mismatch". The GIL lets only one of them run anyway.
_parser = Lock()

app = App()


class SourceFile(BaseModel):
    """The task's parameters. A payload that doesn't fit them is refused before it is enqueued."""

    path: str
    stumbles: bool = False


class Findings(BaseModel):
    """What there is in a file; the counts of one that isn't valid Python are zero."""

    lines: int
    functions: int = 0
    classes: int = 0
    comments: int = 0
    is_valid: bool = False


# Reading a file can fail for reasons that pass (a network disk, say), so two more tries are worth it.
@app.task("index_file", retry=RetryPolicy("200ms", max_attempts=3), timeout="30s")
async def index_file(file: SourceFile, ctx: TaskContext) -> None:
    """Parse a file of the standard library and write down what it contains."""
    if file.stumbles and ctx.attempt == 1:
        raise OSError(f"{file.path} can't be read at the moment (the demo wants to see a retry)")
    # Parsing takes processor time. In the event loop it would hold up every other task of this worker.
    found = await asyncio.to_thread(read_source, LIBRARY / file.path)
    # The commit of this transaction also completes the task: either both happen or neither does.
    async with ctx.transaction() as connection:
        await connection.execute(_SAVE, file.path, ctx.task_id, *found.model_dump().values())
        ctx.result = found


@index_file.on_failed
async def remember_unreadable(file: SourceFile, failure: TaskFailure, tx: asyncpg.Connection) -> None:
    """Runs once, when the last attempt has failed, in the transaction that makes the task `failed`."""
    await tx.execute(_REMEMBER, file.path, failure.task_id, failure.attempts, failure.error)


class Folder(BaseModel):
    """A folder of the library: its path from there, with a slash at the end; empty for the library itself."""

    path: str = ""


# Nobody should wait for it: in the end it has compared every file of the library with every other.
@app.task("find_copies", timeout="1d")
async def find_copies(folder: Folder, ctx: TaskContext) -> list[tuple[str, str]]:
    """Compare the files of a folder with all files of the library; returns the pairs that are alike."""
    every = await asyncio.to_thread(source_files, LIBRARY)
    own, below = look_into(folder.path, every)
    for path in below:
        # A child of this task, enqueued once however often this one is tried.
        await ctx.enqueue("find_copies", Folder(path=path), unique_tag=f"find_copies {path}")
    pairs = ((one, other) for one, other in product(own, every) if one < other)
    # A thread can't be stopped, so each has little to do: between two of them the task can.
    return [pair for pair in pairs if await asyncio.to_thread(are_alike, *pair)]


def look_into(path: str, files: list[str]) -> tuple[list[str], list[str]]:
    """Of these files, those of a folder itself, and its subfolders, both as paths from the library."""
    inside = [file.removeprefix(path) for file in files if file.startswith(path)]
    below = sorted({file.partition("/")[0] for file in inside if "/" in file})
    return [path + file for file in inside if "/" not in file], [f"{path}{folder}/" for folder in below]


def are_alike(*files: str) -> bool:
    """Whether two files of the library have most of their lines in common."""
    one, other = ((LIBRARY / file).read_bytes().splitlines() for file in files)
    return SequenceMatcher(None, one, other).ratio() > 0.9


def source_files(library: Path) -> list[str]:
    """The source files of the library: relative paths, written with slashes."""
    relative = [path.relative_to(library) for path in library.rglob("*.py")]
    return sorted(path.as_posix() for path in relative if _NOT_THE_LIBRARY.isdisjoint(path.parts))


def read_source(path: Path) -> Findings:
    """Read a file and count what is in it. Raises OSError where there is none."""
    source = path.read_bytes()
    lines = len(source.splitlines())
    try:
        return _count(source, lines)
    except (SyntaxError, ValueError, tokenize.TokenError):
        # The library's own tests bring files that are broken on purpose. To find one is a result, no failure.
        return Findings(lines=lines)


def _count(source: bytes, lines: int) -> Findings:
    with _parser:
        tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    tokens = tokenize.tokenize(BytesIO(source).readline)
    return Findings(
        lines=lines,
        functions=sum(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes),
        classes=sum(isinstance(node, ast.ClassDef) for node in nodes),
        comments=sum(token.type == tokenize.COMMENT for token in tokens),
        is_valid=True,
    )

"""The demo's application: its tasks index Python source files, one file a task.

It is written to be read and to be copied from: everything an application needs is on this page. A worker
runs it with `asynctaskd run --app asynctaskd.cli.demo_app:app`.
"""

from __future__ import annotations

import ast
import asyncio
import sysconfig
import tokenize
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from pydantic import BaseModel

from asynctaskd import App, RetryPolicy, TaskContext, TaskFailure

if TYPE_CHECKING:
    import asyncpg

LIBRARY = Path(sysconfig.get_path("stdlib"))

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

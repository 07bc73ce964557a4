"""The run: every measure, in rounds in which the contenders take turns."""

from __future__ import annotations

import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks import results
from benchmarks.contenders import chosen
from benchmarks.contenders.contender import UnavailableError
from benchmarks.measures import wanted
from benchmarks.measures.measure import Bench
from benchmarks.results import Taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Measure, Subject
    from benchmarks.options import Options
    from benchmarks.progress import Progress
    from benchmarks.server import Server


async def run(options: Options, server: Server, progress: Progress) -> AsyncIterator[tuple[str, Taken]]:
    """Take each measure that is wanted; yields its name and what was taken, as soon as it was."""
    contenders, skipped = install(chosen(list(options.only)), progress)
    for measure in wanted(options.measures):
        if measure.subjects(contenders):
            taken = await _blank(measure, options, server, contenders, skipped)
            await _take(measure, taken, Bench(server, options, progress.step), contenders, progress)
            yield measure.name, taken


def install(contenders: list[Contender], progress: Progress) -> tuple[list[Contender], dict[str, str]]:
    """Those that can take part, and why the others can't."""
    reasons: dict[str, str] = {}
    for contender in {contender.peer: contender for contender in contenders}.values():
        progress.say(f"looking for {contender.peer}, installing it if need be")
        try:
            contender.install()
        except UnavailableError as reason:
            reasons[contender.peer] = str(reason)
    present = [contender for contender in contenders if contender.peer not in reasons]
    return present, {c.name: reasons[c.peer] for c in contenders if c.peer in reasons}


async def _blank(
    measure: Measure, options: Options, server: Server, contenders: list[Contender], skipped: dict[str, str]
) -> Taken:
    return Taken(
        title=measure.title(options),
        date=results.today(),
        machine=results.machine(await server.version(), await server.settings()),
        options=results.options_of(options),
        contenders={contender.name: results.facts(contender) for contender in contenders},
        skipped=skipped,
    )


async def _take(
    measure: Measure, taken: Taken, bench: Bench, contenders: list[Contender], progress: Progress
) -> None:
    rounds = bench.options.rounds
    for place in range(1, rounds + 1):
        for subject in measure.subjects(contenders):
            if subject.name in taken.failed:
                continue
            progress.say(f"{measure.name}, round {place} of {rounds}: {subject.name}")
            async with _noting_failure(taken, subject):
                taken.samples += await measure.measure(bench, subject)


@asynccontextmanager
async def _noting_failure(taken: Taken, subject: Subject) -> AsyncIterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  (a peer may fail in ways of its own, and the others go on)
        cause = traceback.extract_tb(error.__traceback__)[-1]
        taken.failed[subject.name] = f"{error!r} ({cause.name})"

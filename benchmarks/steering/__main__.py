"""`python -m benchmarks.steering`, which `make bench-steering` runs."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING

import uvloop
from rich.console import Console

from asynctaskd.postgres import embedded
from benchmarks.contenders.contender import ROOT
from benchmarks.progress import shown
from benchmarks.results import RECORD, SCRATCH, merge_into
from benchmarks.server import Server
from benchmarks.steering import wanted
from benchmarks.steering.answers import Answer, as_json, circumstances, table
from benchmarks.steering.bench import Bench
from benchmarks.steering.options import parse

if TYPE_CHECKING:
    from benchmarks.progress import Progress
    from benchmarks.steering.options import Sizes
    from benchmarks.steering.question import Question


def main() -> None:
    """Ask, print and write down; ends with 1 where a question couldn't be asked."""
    options = parse()
    questions = wanted(options.only)
    # Before the event loop: it may take a while, and has nothing to do beside it.
    with shown() as progress:
        dsn = embedded.resolve(options.database, progress=progress.say)
    answers = uvloop.run(ask(questions, options.sizes, dsn))
    file = (SCRATCH if options.is_partial else RECORD) / "steering.json"
    merge_into(file, as_json(answers))
    if options.as_json:
        print(json.dumps(as_json(answers), indent=1, ensure_ascii=False))
    else:
        Console(width=None if sys.stdout.isatty() else 180).print(table(answers))
        print("written:", file.relative_to(ROOT))
    sys.exit(any(answer.failed for answer in answers.values()))


async def ask(questions: list[Question], sizes: Sizes, dsn: str) -> dict[str, Answer]:
    """Each question so many times, one after another."""
    answers = {}
    with shown() as progress:
        async with Server.connected(dsn) as server:
            known = circumstances(await server.version(), await server.settings(), asdict(sizes))
            for question in questions:
                answers[question.name] = answer = Answer(question, known)
                await ask_in_rounds(answer, server, sizes, progress)
    return answers


async def ask_in_rounds(answer: Answer, server: Server, sizes: Sizes, progress: Progress) -> None:
    """Until it fails."""
    for turn in range(sizes.rounds):
        progress.say(f"{answer.question.name}, round {turn + 1} of {sizes.rounds}")
        try:
            answer.findings += await answer.question.ask(Bench(server, sizes, turn, progress.step))
        except Exception as error:  # noqa: BLE001  (whatever it is, the other questions go on)
            cause = traceback.extract_tb(error.__traceback__)[-1]
            answer.failed = f"{error!r} ({cause.name})"
            return


if __name__ == "__main__":
    main()

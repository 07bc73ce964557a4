"""A worker process of the chaos run: the command line of asynctaskd, with a mutant if CHAOS_MUTANT names it.

    python -m tests.chaos.worker run --app tests.chaos.app:app --database URL …

Mutants are applied here and nowhere else: nothing in the package knows of them.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from asynctaskd.cli import main
from asynctaskd.daemon import isolation
from tests.chaos.mutants import MUTANTS


def start() -> None:
    """Apply the mutant, then be `asynctaskd` with the same arguments."""
    mutant = os.environ.get("CHAOS_MUTANT")
    if mutant:
        MUTANTS[mutant].apply()
    stay_the_same_in_isolation()
    sys.argv = [sys.argv[0], *(signed(argument) for argument in sys.argv[1:])]
    variable = "ASYNCTASKD_DATABASE_URL"
    if variable in os.environ:
        os.environ[variable] = signed(os.environ[variable])
    main()


def stay_the_same_in_isolation() -> None:
    """Have suspects run in processes with the same mutant, which sign what they do themselves."""
    spawn = isolation.spawn

    def spawn_the_same(command: list[str], *arguments: Any, **role: Any) -> Any:
        own = ["tests.chaos.worker" if part == "asynctaskd" else part for part in command]
        return spawn(own, *arguments, **role)

    isolation.spawn = spawn_the_same


def signed(argument: str) -> str:
    """A database URL that tells the audit which process it is; anything else as it is."""
    if not argument.startswith(("postgresql://", "postgres://")):
        return argument
    argument = re.sub(r"[?&]chaos\.process=[0-9]+", "", argument)
    return f"{argument}{'&' if '?' in argument else '?'}chaos.process={os.getpid()}"


if __name__ == "__main__":
    start()

"""A worker process of the chaos run: the command line of asynctaskd, with a mutant if CHAOS_MUTANT names it.

    python -m tests.chaos.worker run --app tests.chaos.app:app --database URL …

Mutants are applied here and nowhere else: nothing in the package knows of them.
"""

from __future__ import annotations

import os
import sys

from asynctaskd.cli import main
from tests.chaos.mutants import MUTANTS


def start() -> None:
    """Apply the mutant, then be `asynctaskd` with the same arguments."""
    mutant = os.environ.get("CHAOS_MUTANT")
    if mutant:
        MUTANTS[mutant].apply()
    sys.argv = [sys.argv[0], *(signed(argument) for argument in sys.argv[1:])]
    variable = "ASYNCTASKD_DATABASE_URL"
    if variable in os.environ:
        os.environ[variable] = signed(os.environ[variable])
    main()


def signed(argument: str) -> str:
    """A database URL that tells the audit which process it is; anything else as it is."""
    if not argument.startswith(("postgresql://", "postgres://")):
        return argument
    return f"{argument}{'&' if '?' in argument else '?'}chaos.process={os.getpid()}"


if __name__ == "__main__":
    start()

"""`manage.py asynctaskd …`: the command line, with the project's database, schema and App."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from django.core.management.base import BaseCommand

from asynctaskd.cli import main
from asynctaskd.django.configuration import configuration, database_url


class Command(BaseCommand):
    """Runs a command of asynctaskd: `manage.py asynctaskd run --concurrency 20`."""

    help = "Runs a command of asynctaskd on this project's database, such as run, check or tasks list."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Leave all that follows to asynctaskd."""
        parser.add_argument("args", nargs=argparse.REMAINDER, metavar="command")

    def handle(self, *args: str, **_: Any) -> None:
        """Run it; leaves with its exit code."""
        for variable, value in _environment().items():
            os.environ.setdefault(variable, value)
        # Processes that a worker starts import what this one does.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        main(args or ["--help"])


def _environment() -> dict[str, str]:
    settings = configuration()
    return {
        "ASYNCTASKD_APP": "asynctaskd.django.worker:app",
        "ASYNCTASKD_DATABASE_URL": database_url(settings.database),
        "ASYNCTASKD_DATABASE_SCHEMA": settings.schema,
    }

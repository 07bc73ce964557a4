"""Every command of `asynctaskd`, in the order in which `--help` lists them."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from asynctaskd.cli.check import check
from asynctaskd.cli.demo import demo
from asynctaskd.cli.enqueue import enqueue
from asynctaskd.cli.enqueue_options import EnqueueCommand
from asynctaskd.cli.failures import report, wants_debug
from asynctaskd.cli.migrate import migrate
from asynctaskd.cli.options import example
from asynctaskd.cli.release import release
from asynctaskd.cli.run import run
from asynctaskd.cli.tasks import list_tasks, show, wait
from asynctaskd.cli.workers import workers
from asynctaskd.version import __version__

_ORDER = ("run", "demo", "migrate", "check", "enqueue", "tasks", "workers", "release")


class _Commands(TyperGroup):
    """All commands. Whatever goes wrong in one becomes an exit code and a text on standard error."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands, in the order in which one needs them."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an int that it returns is the exit code."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  (this is the last one to see it)
            return report(error, debug=ctx.params["debug"] or wants_debug())

    def main(self, *args: Any, **options: Any) -> Any:
        """Parse, run and leave."""
        try:
            code = super().main(*args, **options | {"standalone_mode": False})
        except Exception as error:  # noqa: BLE001  (an error in the arguments before the command)
            code = report(error, debug=wants_debug())
        sys.exit(code if isinstance(code, int) else 0)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"asynctaskd {__version__}")
        raise typer.Exit


def _common(
    ctx: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; `run` logs at the level debug.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Tasks in PostgreSQL: run workers, enqueue tasks and see what became of them."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(2)


_typer = partial(
    typer.Typer,
    add_completion=False,
    # Plain text: it can be searched, copied and read in a pipe, and starts quicker than boxes.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
cli = _typer(cls=_Commands, invoke_without_command=True)
cli.callback(epilog="`asynctaskd COMMAND --help` tells more.")(_common)

_database = "--database postgresql://localhost/shop"
cli.command(epilog=example("asynctaskd run --app shop.tasks:app --database embedded"))(run)
cli.command(
    short_help="See two workers do real work, in a schema of its own.", epilog=example("asynctaskd demo")
)(demo)
cli.command(epilog=example(f"asynctaskd migrate --plan {_database}"))(migrate)
cli.command(epilog=example(f"asynctaskd check {_database}"))(check)
cli.command(
    cls=EnqueueCommand,
    epilog=example("""asynctaskd enqueue send_email '{"user_id": 1}' --priority 10 --wait=30s"""),
)(enqueue)
cli.command(epilog=example("asynctaskd workers --json"))(workers)
cli.command(
    short_help="Put back the tasks of a worker that is gone.",
    epilog=example(f"asynctaskd release --worker 6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11 {_database}"),
)(release)

_tasks = _typer(help="List, show and await tasks.")
_tasks.command("list", epilog=example("asynctaskd tasks list --status failed --limit 20"))(list_tasks)
_tasks.command(epilog=example("asynctaskd tasks show 17"))(show)
_tasks.command(epilog=example("asynctaskd tasks wait 17 --timeout 30s"))(wait)
cli.add_typer(_tasks, name="tasks")

"""Every command of `asynctaskd`, in the order in which `--help` lists them."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from asynctaskd.cli import config, cron, labels
from asynctaskd.cli.check import check
from asynctaskd.cli.dashboard import dashboard
from asynctaskd.cli.demo import demo
from asynctaskd.cli.enqueue import enqueue
from asynctaskd.cli.enqueue_options import EnqueueCommand
from asynctaskd.cli.failures import is_unwritable, report, wants_debug
from asynctaskd.cli.generate import generate
from asynctaskd.cli.init import init
from asynctaskd.cli.migrate import migrate
from asynctaskd.cli.options import SelectingCommand, example
from asynctaskd.cli.release import release
from asynctaskd.cli.run import run
from asynctaskd.cli.spec import diff
from asynctaskd.cli.steer_tasks import commanded, fail, reprioritize
from asynctaskd.cli.tasks import list_tasks, show, timeline, wait, why
from asynctaskd.cli.top import top
from asynctaskd.cli.watch import watch
from asynctaskd.cli.workers import workers
from asynctaskd.version import __version__

_ORDER = (
    "run", "demo", "init", "migrate", "check", "enqueue", "tasks", "workers", "top", "dashboard", "config",
    "labels", "cron", "generate", "spec", "release",
)  # fmt: skip


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
            if is_unwritable(error):
                # It still holds what can't be written, which Python would find once more at exit.
                sys.stdout = None
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
cli.command(short_help="Write the skeleton of an application.", epilog=example("asynctaskd init shop"))(init)
cli.command(epilog=example(f"asynctaskd migrate --plan {_database}"))(migrate)
cli.command(epilog=example(f"asynctaskd check {_database}"))(check)
cli.command(
    cls=EnqueueCommand,
    epilog=example("""asynctaskd enqueue send_email '{"user_id": 1}' --priority 10 --wait=30s"""),
)(enqueue)
cli.command(epilog=example("asynctaskd workers --json"))(workers)
cli.command(short_help="Watch the fleet live, and steer it.", epilog=example("asynctaskd top --interval 2s"))(
    top
)
cli.command(
    short_help="Serve pages that show the fleet, and steer it.",
    epilog=example(f"asynctaskd dashboard --write {_database}"),
)(dashboard)
cli.command(epilog=example("asynctaskd generate tasks.yaml --output shop/tasks_gen.py"))(generate)
cli.command(
    short_help="Put back the tasks of a worker that is gone.",
    epilog=example(f"asynctaskd release --worker 6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11 {_database}"),
)(release)

_tasks = _typer(help="List, show, await and steer tasks.")
_selecting = partial(_tasks.command, cls=SelectingCommand)
_selecting("list", epilog=example("asynctaskd tasks list --status failed --limit 20"))(list_tasks)
_tasks.command(epilog=example("asynctaskd tasks show 17"))(show)
_tasks.command(epilog=example("asynctaskd tasks why 17"))(why)
_tasks.command(epilog=example("asynctaskd tasks timeline 17"))(timeline)
_tasks.command(epilog=example("asynctaskd tasks wait 17 --timeout 30s"))(wait)
_selecting(epilog=example("asynctaskd tasks watch --name send_email --status failed,scheduled"))(watch)
for _action, _says, _example in (
    ("pause", "Keep tasks from running until they are resumed; what runs is stopped.", "17 18"),
    ("resume", "Let paused tasks go on.", "--tag import --except-tag nightly"),
    ("cancel", "End tasks without completing them, with all their descendants.", "17 --timeout 10s"),
    (
        "retry",
        "Run again what failed, was cancelled or expired.",
        "--name send_email --since 02:00",
    ),
    ("expire", "End tasks as if their deadline had passed.", "17"),
    ("run_now", "Have a worker with a free slot run tasks out of turn.", "17"),
    ("purge", "Forget finished tasks, with their events.", "--status completed --until 24h --dry-run"),
):
    _verb = _action.replace("_", "-")
    _selecting(_verb, epilog=example(f"asynctaskd tasks {_verb} {_example}"))(commanded(_action, _says))
_selecting(epilog=example("asynctaskd tasks fail 17 --reason 'wrong address'"))(fail)
_selecting(epilog=example("asynctaskd tasks reprioritize --label mail --priority 10"))(reprioritize)
cli.add_typer(_tasks, name="tasks")

_config = _typer(help="Show and change how all workers schedule.")
_config.command(epilog=example("asynctaskd config show"))(config.show)
_config.command(
    "set",
    epilog=example(
        "asynctaskd config set max_strict_percentage=20 weights.mail=5 --expires 1h",
        "asynctaskd config set paused_labels+=reports --canary 10m",
        "asynctaskd config set weights.mail=50 --preview",
    ),
)(config.set_fields)
_config.command(epilog=example("asynctaskd config history --limit 5"))(config.history)
_config.command(epilog=example("asynctaskd config rollback 17"))(config.rollback)
_config.command(epilog=example("asynctaskd config promote"))(config.promote)
cli.add_typer(_config, name="config")

_labels = _typer(help="Show and change what holds for the tasks of a label.")
_labels.command("list", epilog=example("asynctaskd labels list --json"))(labels.list_labels)
_labels.command("set", epilog=example("asynctaskd labels set mail --max-running 50 --max-run-time 5m"))(
    labels.set_label
)
cli.add_typer(_labels, name="labels")

_cron = _typer(help="Show and change schedules.")
_cron.command("list", epilog=example("asynctaskd cron list --json"))(cron.list_schedules)
_cron.command(
    epilog=example("""asynctaskd cron add report '0 0 2 * * *' --tz Europe/Vienna --params '{"size": 3}'""")
)(cron.add)
_cron.command(epilog=example("asynctaskd cron change report --cron '@every 10m' --missed skip"))(cron.change)
_cron.command(epilog=example("asynctaskd cron pause report"))(cron.pause)
_cron.command(epilog=example("asynctaskd cron resume report"))(cron.resume)
_cron.command(epilog=example("asynctaskd cron remove report"))(cron.remove)
_cron.command(epilog=example("asynctaskd cron slots report --limit 20"))(cron.slots)
_cron.command(epilog=example("asynctaskd cron preview '0 30 2 * * *' --tz Europe/Vienna -n 5"))(cron.preview)
cli.add_typer(_cron, name="cron")

_spec = _typer(help="Compare files of definitions.")
_spec.command(
    epilog=example(
        "asynctaskd spec diff tasks.yaml.before tasks.yaml",
        f"asynctaskd spec diff tasks.yaml --against-db {_database}",
    )
)(diff)
cli.add_typer(_spec, name="spec")

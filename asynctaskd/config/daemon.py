"""What is this worker? The models of all that is read at boot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from asynctaskd.config.values import (
    Boolean,
    Concurrency,
    DashboardMode,
    DatabaseURL,
    Duration,
    DurationOrZero,
    File,
    Host,
    HostNames,
    Labels,
    Listen,
    LogFormat,
    LogLevel,
    Percentage,
    PoolSize,
    Port,
    SchemaName,
    SecretText,
    ServerURL,
    WorkerID,
)
from asynctaskd.durations import format_duration
from asynctaskd.errors import ConfigError


def _setting(default: Any, description: str, *, example: object = None) -> Any:
    return Field(default, description=description, examples=None if example is None else [example])


class Section(BaseModel):
    """A section of the configuration: one table of the file."""

    # Pydantic's own messages would quote the input, and with it passwords.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DatabaseConfig(Section):
    """Where the tasks are kept."""

    url: DatabaseURL = _setting(
        None,
        'The database that holds the tasks, as a URL, or "embedded": a private server for trying things out, '
        "started when the first process asks for it and stopped after the last. Each command needs one.",
        example="postgresql://asynctaskd@localhost:5432/asynctaskd",
    )
    schema_name: SchemaName = Field(
        default="asynctaskd", alias="schema", description="The schema that holds the tables and functions."
    )
    pool_size: PoolSize = _setting(
        10,
        "How many connections failure hooks and ctx.transaction() may use at once (connections).",
    )
    listen: Listen = _setting(
        "auto",
        "Whether to be woken by NOTIFY: auto listens as soon as it can, on doesn't start without it, off "
        "relies on worker.poll_interval alone.",
    )
    listen_url: ServerURL = _setting(
        None,
        "Another URL for the LISTEN connection alone, past a pooler for example; without it, database.url.",
        example="postgresql://asynctaskd@localhost:5432/asynctaskd",
    )

    def require_url(self) -> str:
        """The database's URL in plain text, its password included: never log it.

        Raises:
            ConfigError: it isn't set; the message tells how to set it.
        """
        if self.url is None:
            raise ConfigError(
                "database.url is not set: give --database postgresql://user@host/name, or set "
                "ASYNCTASKD_DATABASE_URL, or write url under [database] in the configuration file "
                '("embedded" starts a private server for trying things out)'
            )
        return self.url.get_secret_value()


class WorkerConfig(Section):
    """What this worker runs, and how it holds on to it."""

    enabled: Boolean = _setting(
        True,
        "Whether to claim tasks; false keeps the queue moving (due tasks, lost workers, changes of the "
        "runtime configuration), and offers no labels and runs none.",
    )
    id: WorkerID = _setting(
        None,
        "A name that survives restarts: the worker carries the label worker:<id>, so that tasks can be sent "
        "to it. Two live workers must not share it.",
        example="6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11",
    )
    concurrency: Concurrency = _setting(
        10, 'How many tasks run at once (number of tasks); "cpu" is the number of processors it may use.'
    )
    labels: Labels = _setting(
        (),
        "What this worker offers: it runs the tasks whose labels it carries all (list of labels; in a "
        "variable or flag separated by commas). Unlabelled tasks run anywhere.",
    )
    poll_interval: Duration = _setting(
        timedelta(seconds=1),
        "How often to look for tasks that no notice announced (duration); the longest a task waits where a "
        "notice is lost.",
    )
    lease: Duration = _setting(
        timedelta(seconds=30),
        "How long the worker may be silent before its tasks go to others (duration); at least 3 × "
        "worker.renew_interval.",
    )
    renew_interval: Duration = _setting(
        timedelta(seconds=5), "How often the worker renews its lease and looks for commands (duration)."
    )
    grace: DurationOrZero = _setting(
        timedelta(seconds=30),
        "How long running tasks may go on after the first SIGTERM or SIGINT before they are put back "
        "(duration); keep it below the stop timeout of systemd or Kubernetes.",
    )
    stall_limit: Duration = _setting(
        timedelta(seconds=60),
        "How long a handler may block the event loop before the worker gives itself up, with exit code 70 "
        "(duration).",
    )
    max_strict_percentage: Percentage = _setting(
        100,
        "The share of worker.concurrency that tasks with a priority above 0 may take (percent); a value "
        "published for the whole fleet wins.",
    )

    @model_validator(mode="after")
    def _lease_survives_lost_renewals(self) -> Self:
        least = 3 * self.renew_interval
        if self.lease < least:
            raise ValueError(
                f"worker.lease must be at least 3 × worker.renew_interval ({format_duration(least)}), "
                f"got {format_duration(self.lease)}"
            )
        return self


class HttpConfig(Section):
    """Where it can be asked how it is."""

    host: Host = _setting("127.0.0.1", "The address to answer at; nobody is asked for a password.")
    port: Port = _setting(
        None,
        "Where GET /livez, /readyz and /metrics are answered; 0 takes any free port, and without one nothing "
        "is answered. With --processes each worker takes the next port after the one before.",
        example=9400,
    )


class DashboardConfig(Section):
    """The pages on which people see the fleet, and who may do what there."""

    mode: DashboardMode = _setting(
        "off",
        "Whether workers serve it, at http.port below /dashboard/: read shows, write changes too. "
        "`asynctaskd dashboard` serves it by itself.",
    )
    token_file: File = _setting(
        None,
        "Who is let in: a line `ROLE NAME SECRET` for each, ROLE is read or write, SECRET at least 16 "
        "characters. Without tokens everybody is, and so only an address of this machine will do.",
        example="/etc/asynctaskd/dashboard.tokens",
    )
    tokens: SecretText = _setting(
        None,
        "The same lines themselves, for a variable that a secret store fills; with a file, both hold.",
        example="read ops 6NDPxIRyhEfTq0UQ",
    )
    show_payloads: Boolean = _setting(
        False,
        "Whether payloads, results and the texts of errors are shown; fields known to be secret never are.",
    )
    hosts: HostNames = _setting(
        (),
        "Further names by which it may be asked for where no token is needed: that of a proxy before it "
        "(list; in a variable separated by commas).",
    )


class LogConfig(Section):
    """What is written to standard error."""

    level: LogLevel = _setting(
        "info", "The least severe level that is written: debug, info, warning, error or critical."
    )
    format: LogFormat = _setting(
        "auto", "console for people, json for one object a line, auto for console on a terminal only."
    )


class DaemonConfig(Section):
    """All that is read at boot. Facts only; `repr` never shows a URL."""

    database: DatabaseConfig = DatabaseConfig()
    worker: WorkerConfig = WorkerConfig()
    http: HttpConfig = HttpConfig()
    dashboard: DashboardConfig = DashboardConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _dashboard_has_a_port(self) -> Self:
        if self.dashboard.mode != "off" and self.http.port is None:
            raise ValueError(f"dashboard.mode {self.dashboard.mode} needs http.port, where it is served")
        return self

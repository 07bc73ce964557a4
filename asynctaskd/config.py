"""What a worker is (`DaemonConfig`, read at boot) and how the fleet is steered (`RuntimeConfig`, a row).

Precedence: defaults < TOML file < environment `ASYNCTASKD_<SECTION>_<KEY>` < flags < runtime row.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from asynctaskd.durations import format_duration, parse_duration
from asynctaskd.errors import ConfigError, InvalidInputError

NAME_PATTERN = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
"""What the name of a task and each of its labels consist of; use `fullmatch`."""

EMBEDDED = "embedded"
"""The `database.url` that asks for a private server, started and stopped with the process."""

_MAX_INTEGER = 2**31 - 1
_LONGEST = timedelta(days=30)
_CREDENTIALS = re.compile(r"://\S*@")  # of a URL that was given to the wrong key
# 44 characters leave room for "_runtime_config_ack" within the 63 bytes of a channel's name.
_SCHEMA_PATTERN = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,43}")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a key takes: in words, and how it is read from the text of a variable or a flag."""

    expects: str
    from_text: Callable[[str], object] = str
    secret: bool = False


def _integer_in(text: str) -> object:
    try:
        return int(text)
    except ValueError:
        return text


_BOOLEANS: Mapping[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def _boolean_in(text: str) -> object:
    return _BOOLEANS.get(text.strip().lower(), text)


def _list_in(text: str) -> object:
    return [part.strip() for part in text.split(",") if part.strip()]


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux tells which processors a process may use
        return os.cpu_count() or 1


def _concurrency(value: object) -> object:
    return _processors() if value == "cpu" else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _duration(value: object) -> timedelta:
    duration = parse_duration(cast("str | timedelta", value))
    if duration > _LONGEST:
        raise ValueError(f"a duration must be at most {format_duration(_LONGEST)}")
    return duration


def _not_zero(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("a duration must be more than 0s")
    return value


def _database_url(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if url != EMBEDDED and not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("not a database URL")
    return value


def _schema(value: str) -> str:
    if not _SCHEMA_PATTERN.fullmatch(value):
        raise ValueError("not a schema name")
    return value


def _labels(values: tuple[str, ...]) -> tuple[str, ...]:
    if not all(NAME_PATTERN.fullmatch(label) and not label.startswith("worker:") for label in values):
        raise ValueError("not a label")
    return tuple(sorted(set(values)))


_DURATION_TEXT = "written such as 500ms, 5s or 1h30m"
_URL = _Kind('a URL such as postgresql://user@host:5432/name, or "embedded"', secret=True)
_LABELS = _Kind(
    'a list of labels of 1 to 128 characters A-Z a-z 0-9 _ . : / -, none beginning with "worker:"', _list_in
)
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    AfterValidator(_not_zero),
    _Kind(f"a duration of more than 0s and at most 30d, {_DURATION_TEXT}"),
]
DurationOrZero = Annotated[
    timedelta, BeforeValidator(_duration), _Kind(f"a duration of at most 30d, {_DURATION_TEXT}")
]
DatabaseURL = Annotated[SecretStr, AfterValidator(_database_url)]


def _choice(*words: str) -> _Kind:
    return _Kind(f"{', '.join(words[:-1])} or {words[-1]}")


def _setting(default: Any, description: str, *, example: object = None) -> Any:
    return Field(default, description=description, examples=None if example is None else [example])


class _Section(BaseModel):
    # Pydantic's own messages would quote the input, and with it passwords.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class DatabaseConfig(_Section):
    """Where the tasks are kept."""

    url: Annotated[DatabaseURL | None, _URL] = _setting(
        None,
        'The database that holds the tasks, as a URL, or "embedded": a private server for trying things out, '
        "started and stopped with the process. Every command that needs a database needs it.",
        example="postgresql://asynctaskd@localhost:5432/asynctaskd",
    )
    schema_name: Annotated[
        str,
        AfterValidator(_schema),
        _Kind('1 to 44 characters a-z 0-9 _, not beginning with a digit or with "pg_"'),
    ] = Field(
        default="asynctaskd", alias="schema", description="The schema that holds the tables and functions."
    )
    pool_size: Annotated[
        int, Field(strict=True, ge=1, le=1000), _Kind("an integer from 1 to 1000", _integer_in)
    ] = _setting(
        10,
        "How many connections failure hooks and ctx.transaction() may use at once (connections).",
    )
    listen: Annotated[Literal["auto", "on", "off"], BeforeValidator(_lower), _choice("auto", "on", "off")] = (
        _setting(
            "auto",
            "Whether to be woken by NOTIFY: on insists, off relies on worker.poll_interval alone, auto "
            "listens wherever the connection delivers notices (not through a transaction pooler).",
        )
    )
    listen_url: Annotated[DatabaseURL | None, _URL] = _setting(
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

    def require_listen_url(self) -> str:
        """The URL for LISTEN in plain text: `listen_url`, or else what `require_url` gives or raises."""
        return self.listen_url.get_secret_value() if self.listen_url else self.require_url()


class WorkerConfig(_Section):
    """What this worker runs, and how it holds on to it."""

    enabled: Annotated[bool, Field(strict=True), _Kind("true or false", _boolean_in)] = _setting(
        True, "Whether to claim tasks; false only serves health and metrics."
    )
    id: Annotated[UUID | None, _Kind("a UUID")] = _setting(
        None,
        "A name that survives restarts: the worker carries the label worker:<id>, so that tasks can be sent "
        "to it. Two live workers must not share it.",
        example="6f1c7c52-0f5a-4a56-9a3e-2f3f0c5d8b11",
    )
    concurrency: Annotated[
        int,
        BeforeValidator(_concurrency),
        Field(strict=True, ge=1, le=100_000),
        _Kind('an integer from 1 to 100000, or "cpu"', _integer_in),
    ] = _setting(
        10, 'How many tasks run at once (number of tasks); "cpu" is the number of processors it may use.'
    )
    labels: Annotated[tuple[str, ...], AfterValidator(_labels), _LABELS] = _setting(
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
    max_strict_percentage: Annotated[
        int, Field(strict=True, ge=0, le=100), _Kind("an integer from 0 to 100", _integer_in)
    ] = _setting(
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


class LogConfig(_Section):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        BeforeValidator(_lower),
        _choice("debug", "info", "warning", "error", "critical"),
    ] = _setting("info", "The least severe level that is written: debug, info, warning, error or critical.")
    format: Annotated[
        Literal["auto", "console", "json"], BeforeValidator(_lower), _choice("auto", "console", "json")
    ] = _setting(
        "auto", "console for people, json for one object a line, auto for console on a terminal only."
    )


class DaemonConfig(_Section):
    """All that is read at boot. Facts only; `repr` never shows a URL."""

    database: DatabaseConfig = DatabaseConfig()
    worker: WorkerConfig = WorkerConfig()
    log: LogConfig = LogConfig()


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration, as told to people: in the example file, `--help` and the docs.

    Attributes:
        key: the section and the name, `worker.concurrency`.
        default: its value where nothing is given; None where there is none.
        description: a sentence or two, with the unit.
        expects: what it takes, in words ("an integer from 0 to 100").
        example: a value to show where there is no default.
        secret: whether its value must never be shown.
    """

    key: str
    default: object
    description: str
    expects: str
    example: object
    secret: bool
    _from_text: Callable[[str], object]

    @property
    def section(self) -> str:
        """The section of the file it stands in."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """Its name within its section."""
        return self.key.partition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"ASYNCTASKD_{self.section}_{self.name}".upper()

    @property
    def flag(self) -> str:
        """What its flag is called on the command line, where there is one."""
        if self.key == "database.url":
            return "--database"
        return ("--log-" if self.section == "log" else "--") + self.name.replace("_", "-")

    def read(self, given: object) -> object:
        """The value of a variable's or flag's text; what isn't text is taken as it is."""
        return self._from_text(given) if isinstance(given, str) else given

    def problem(self, source: str, value: object) -> str:
        """The sentence for a value that doesn't suit, without the value where that is secret."""
        got = "" if self.secret else f", got {_shown(value)}"
        return f"{self.key} {source} must be {self.expects}{got}"


def _sections() -> Iterator[tuple[str, type[_Section]]]:
    for name, info in DaemonConfig.model_fields.items():
        yield name, cast("type[_Section]", info.annotation)


def _settings_of(section: str, model: type[_Section]) -> Iterator[Setting]:
    for attribute, info in model.model_fields.items():
        (kind,) = (item for item in info.metadata if isinstance(item, _Kind))
        yield Setting(
            key=f"{section}.{info.alias or attribute}",
            default=info.default,
            description=info.description or "",
            expects=kind.expects,
            example=info.examples[0] if info.examples else None,
            secret=kind.secret,
            _from_text=kind.from_text,
        )


SETTINGS: Mapping[str, Setting] = {
    setting.key: setting for section, model in _sections() for setting in _settings_of(section, model)
}
"""Every key by its full name, in the order of the example file."""

_SECTIONS = dict(_sections())
_VARIABLES = {setting.variable: setting for setting in SETTINGS.values()}
_FOREIGN_VARIABLES = re.compile(r"ASYNCTASKD_(APP|CONFIG|TEST_.*)")
# Kubernetes sets these in every pod beside a Service whose name begins with "asynctaskd".
_SERVICE_VARIABLES = re.compile(
    r"ASYNCTASKD_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class _Given:
    value: object
    source: str


_Layer = dict[str, _Given]


def load_config(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object]
) -> DaemonConfig:
    """Read the configuration: defaults < the TOML file < the environment < flags.

    Args:
        path: the TOML file, or None for none (`ASYNCTASKD_CONFIG` is for the caller to look at).
        environ: the environment; an empty variable counts as not set, lists are separated by commas.
        overrides: flags by full key (`"worker.concurrency"`); None is a flag that wasn't given.

    Raises:
        ConfigError: all that is wrong, one problem a line, each with its key and where it was given.
    """
    problems: list[str] = []
    given = (
        _from_file(path, problems) | _from_environment(environ, problems) | _from_flags(overrides, problems)
    )
    config = _validated(given, problems)
    if config is None or problems:
        raise ConfigError("\n".join(problems))
    return config


def _validated(given: _Layer, problems: list[str]) -> DaemonConfig | None:
    nested: dict[str, dict[str, object]] = {}
    for key, item in given.items():
        nested.setdefault(SETTINGS[key].section, {})[SETTINGS[key].name] = item.value
    try:
        return DaemonConfig.model_validate(nested)
    except ValidationError as refused:
        # One list shows two bad elements as two errors of the same key.
        problems += dict.fromkeys(_problem(error, given) for error in refused.errors())
    return None


def _problem(error: ErrorDetails, given: _Layer) -> str:
    key = ".".join(map(str, error["loc"][:2]))
    if key in given:
        return SETTINGS[key].problem(given[key].source, given[key].value)
    return str(error.get("ctx", {}).get("error", error["msg"]))


def _from_file(path: Path | None, problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for section, table in _toml(path, problems).items():
        if section in _SECTIONS and isinstance(table, dict):
            layer |= _from_table(section, table, f"in {path}", problems)
        else:
            problems.append(_misplaced(section, table, f"in {path}"))
    return layer


def _toml(path: Path | None, problems: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        problems.append(f"there is no configuration file {path}")
    except OSError as error:
        problems.append(f"the configuration file {path} can't be read: {error.strerror}")
    except UnicodeDecodeError as error:
        problems.append(f"the configuration file {path} isn't UTF-8 text (byte {error.start})")
    except ValueError as error:  # an integer of thousands of digits is no TOMLDecodeError
        problems.append(f"the configuration file {path} isn't valid TOML: {error}")
    return {}


def _from_table(section: str, table: Mapping[str, object], source: str, problems: list[str]) -> _Layer:
    keys = {f"{section}.{name}": value for name, value in table.items()}
    problems += [f"unknown key {key} {source}{_nearest_key(key)}" for key in keys if key not in SETTINGS]
    return {key: _Given(value, source) for key, value in keys.items() if key in SETTINGS}


def _misplaced(section: str, value: object, source: str) -> str:
    if section in _SECTIONS:
        return f"{section} {source} must be a section, [{section}]"
    if isinstance(value, dict):
        return f"unknown section [{section}] {source}{_nearest(section, _SECTIONS, '[{}]')}"
    return f"unknown key {section} {source}{_nearest_key(section)}"


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for variable in sorted(environ):
        if setting := _VARIABLES.get(variable):
            if environ[variable].strip():
                layer[setting.key] = _Given(setting.read(environ[variable]), f"from {variable}")
        elif _is_mistaken(variable, environ[variable]):
            problems.append(f"unknown variable {variable}{_nearest(variable, _VARIABLES)}")
    return layer


def _is_mistaken(variable: str, value: str) -> bool:
    return variable.startswith("ASYNCTASKD_") and not (
        _FOREIGN_VARIABLES.fullmatch(variable)
        or _SERVICE_VARIABLES.fullmatch(variable)
        or _SERVICE_ADDRESS.match(value)
    )


def _from_flags(overrides: Mapping[str, object], problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for key, value in overrides.items():
        if key not in SETTINGS:
            problems.append(f"unknown key {key} from a flag{_nearest_key(key)}")
        elif value is not None:
            layer[key] = _Given(SETTINGS[key].read(value), f"from {SETTINGS[key].flag}")
    return layer


def _nearest_key(key: str) -> str:
    section, _, name = key.rpartition(".")
    elsewhere = [known for known, setting in SETTINGS.items() if setting.name == name]
    here = [known for known, setting in SETTINGS.items() if setting.section == section]
    near = elsewhere or difflib.get_close_matches(key, SETTINGS, n=1) or _close_names(name)
    return _nearest(near[0], SETTINGS) if near else f"; known keys are {', '.join(here or SETTINGS)}"


def _close_names(name: str) -> list[str]:
    names = {setting.name: key for key, setting in SETTINGS.items()}
    return [names[near] for near in difflib.get_close_matches(name, names, n=1)]


def _nearest(word: str, known: Iterable[str], pattern: str = "{}") -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    if near:
        return f"; did you mean {pattern.format(near[0])}?"
    return f"; known are {', '.join(map(pattern.format, known))}"


def _shown(value: object) -> str:
    text = format_duration(value) if isinstance(value, timedelta) else repr(value)
    text = _CREDENTIALS.sub("://***@", text)
    return text if len(text) <= 100 else f"{text[:100]}…"


_EXAMPLE_HEAD = """\
# The configuration of asynctaskd. Every key stands here with its default; a key without one is commented out.
#
# Precedence: defaults < this file < environment ASYNCTASKD_<SECTION>_<KEY> < flags.
# Durations are written 500ms, 5s, 30m, 1h30m, 2h or 1d.
"""


def render_example() -> str:
    """The text of config.example.toml: every key with its description, variable and default."""
    return "\n".join([_EXAMPLE_HEAD, *(_example_section(name, model) for name, model in _sections())])


def _example_section(name: str, model: type[_Section]) -> str:
    entries = (_example_entry(setting) for setting in SETTINGS.values() if setting.section == name)
    return f"# {model.__doc__}\n[{name}]\n\n" + "\n".join(entries)


def _example_entry(setting: Setting) -> str:
    comment = _comment(setting.description) + _comment(f"Takes {setting.expects}. {setting.variable}")
    if setting.default is None:
        return f"{comment}# {setting.name} = {_toml_value(setting.example)}\n"
    return f"{comment}{setting.name} = {_toml_value(setting.default)}\n"


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, 98, break_on_hyphens=False, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)


def _toml_value(value: object) -> str:
    return json.dumps(format_duration(value) if isinstance(value, timedelta) else value)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """How the fleet is steered: one version of the row that operators publish and workers acknowledge.

    Attributes:
        version: counts the published versions; 0 where none was written yet.
        max_strict_percentage: 0 to 100, or None: each worker's own value applies.
        default_weight: the weight of the group `default`.
        weights: label to weight (at least 1); these labels are the groups of the normal lane.
        limits: label to the number of tasks that may run at once in the whole fleet.
        paused_labels: tasks that carry one of them aren't claimed.
        paused_names: tasks of these names aren't claimed.

    Raises:
        InvalidInputError: a value breaks a rule; the message names the field.
    """

    version: int = 0
    max_strict_percentage: int | None = None
    default_weight: int = 1
    weights: dict[str, int] = field(default_factory=dict[str, int])
    limits: dict[str, int] = field(default_factory=dict[str, int])
    paused_labels: list[str] = field(default_factory=list[str])
    paused_names: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        """Check every field."""
        _check_integer("version", self.version, 0)
        if self.max_strict_percentage is not None:
            _check_integer("max_strict_percentage", self.max_strict_percentage, 0, 100)
        _check_integer("default_weight", self.default_weight, 1)
        _check_numbers("weights", self.weights, 1)
        _check_numbers("limits", self.limits, 0)
        _check_names("paused_labels", self.paused_labels)
        _check_names("paused_names", self.paused_names)

    def effective_strict_percentage(self, worker_value: int) -> int:
        """The share of slots for strict tasks, in percent: what this row sets wins over the worker's own."""
        return worker_value if self.max_strict_percentage is None else self.max_strict_percentage

    def updated(self, changes: Mapping[str, Any]) -> RuntimeConfig:
        """The next version: fields left out keep their value, a mapping or list replaces the whole one.

        Raises:
            InvalidInputError: nothing is changed, a field is unknown, or a value breaks a rule.
        """
        if not changes:
            raise InvalidInputError("a change of the runtime configuration must name at least one field")
        known = [item.name for item in fields(self) if item.name != "version"]
        for name in changes:
            if name not in known:
                raise InvalidInputError(f"unknown runtime configuration field {name}{_nearest(name, known)}")
        return replace(self, version=self.version + 1, **changes)


def _check_integer(name: str, value: object, least: int, most: int = _MAX_INTEGER) -> None:
    if type(value) is not int:
        raise InvalidInputError(f"{name} must be an integer, got {_shown(value)}")
    if value < least:
        raise InvalidInputError(f"{name} must be at least {least}, got {value}")
    if value > most:
        raise InvalidInputError(f"{name} must be at most {most}, got {_shown(value)}")


def _check_numbers(name: str, numbers: object, least: int) -> None:
    if not isinstance(numbers, dict):
        raise InvalidInputError(f"{name} must map labels to integers, got {_shown(numbers)}")
    for label, number in cast("dict[object, object]", numbers).items():
        _check_name(name, label)
        if label in ("default", "__default__") or str(label).startswith("worker:"):
            raise InvalidInputError(f"{name} can't name the label {label}: it is reserved")
        _check_integer(f"{name}[{label}]", number, least)


def _check_names(name: str, names: object) -> None:
    if not isinstance(names, list | tuple):
        raise InvalidInputError(f"{name} must be a list, got {_shown(names)}")
    for item in cast("Iterable[object]", names):
        _check_name(name, item)


def _check_name(name: str, value: object) -> None:
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        raise InvalidInputError(
            f"{name} must name 1 to 128 characters A-Z a-z 0-9 _ . : / -, got {_shown(value)}"
        )

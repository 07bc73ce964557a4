"""Where does a value come from? Defaults < the TOML file < the environment < flags."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from asynctaskd.config.daemon import DaemonConfig
from asynctaskd.config.settings import SECTIONS, SETTINGS
from asynctaskd.config.values import IN_FILE
from asynctaskd.config.wording import nearest
from asynctaskd.durations import format_duration
from asynctaskd.errors import ConfigError

_VARIABLES = {setting.variable: setting for setting in SETTINGS.values()}
# The URLs, which may be kept in files.
_FILES = {
    f"{setting.variable}_FILE": setting
    for setting in SETTINGS.values()
    if setting.secret and setting.section == "database"
}
# TASK_ is what the program of a command_task is told.
_FOREIGN_VARIABLES = re.compile(r"ASYNCTASKD_(APP|CONFIG|TEST_.*|TASK_.*)")
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
        if section in SECTIONS and isinstance(table, dict):
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
    if section in SECTIONS:
        return f"{section} {source} must be a section, [{section}]"
    if isinstance(value, dict):
        return f"unknown section [{section}] {source}{nearest(section, SECTIONS, '[{}]')}"
    return f"unknown key {section} {source}{_nearest_key(section)}"


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> _Layer:
    layer: _Layer = {}
    for variable in sorted(environ):
        if setting := _VARIABLES.get(variable):
            if environ[variable].strip():
                layer[setting.key] = _Given(setting.read(environ[variable]), f"from {variable}")
        elif setting := _FILES.get(variable):
            if environ[variable].strip():
                layer[setting.key] = _Given(f"{IN_FILE}{environ[variable]}", f"from {variable}")
            if environ.get(setting.variable, "").strip() and environ[variable].strip():
                problems.append(f"{setting.variable} and {variable} exclude each other")
        elif _is_mistaken(variable, environ[variable]):
            problems.append(f"unknown variable {variable}{nearest(variable, _VARIABLES)}")
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
    return nearest(near[0], SETTINGS) if near else f"; known keys are {', '.join(here or SETTINGS)}"


def _close_names(name: str) -> list[str]:
    names = {setting.name: key for key, setting in SETTINGS.items()}
    return [names[near] for near in difflib.get_close_matches(name, names, n=1)]


def variables_of(config: DaemonConfig, changes: Mapping[str, str]) -> dict[str, str]:
    """A configuration as the environment of a process that shall have the same: every variable, set or empty.

    Passwords are in it: for nobody but that process. `changes` are texts by full key.
    """
    told = config.model_dump(by_alias=True)
    texts = {key: _text(told[setting.section][setting.name]) for key, setting in SETTINGS.items()}
    return {SETTINGS[key].variable: text for key, text in {**texts, **changes}.items()}


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case timedelta():
            return format_duration(value)
        case tuple():
            return ",".join(map(str, cast("tuple[object, ...]", value)))
        case _:
            return str(value)

"""From `module:attribute`, as the command line and the configuration give it, to the App."""

from __future__ import annotations

import importlib
import sys
from functools import reduce
from pathlib import Path
from types import ModuleType

from asynctaskd.definitions.declarations import Declarations
from asynctaskd.definitions.text import describe_error, shown
from asynctaskd.errors import ConfigError, InvalidDefinitionError


def load_app(path: str) -> Declarations:
    """Import the App that `module:attribute` names; the attribute may be dotted.

    The current directory becomes importable, as it is for `python -m`.

    Raises:
        ConfigError: the path has no colon, the module isn't found or fails to import, it has no such
            attribute, or that is no App, or it lacks a failure task. The message says which; the module's own
            error is its cause.
    """
    module_name, attribute = _parts(path)
    _make_importable(str(Path.cwd()))
    found = _find(_import(module_name), attribute)
    if not isinstance(found, Declarations):
        raise ConfigError(f"app: {path} must be an App, got {shown(found)}")
    try:
        found.check()
    except InvalidDefinitionError as error:
        raise ConfigError(f"app: {error}") from None
    return found


def _parts(path: str) -> tuple[str, str]:
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute) or module.startswith("."):
        raise ConfigError(f"app must be written module:attribute, such as shop.tasks:app, got {shown(path)}")
    return module, attribute


def _make_importable(directory: str) -> None:
    if directory not in sys.path:
        sys.path.insert(0, directory)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            where = f"in {Path.cwd()} or on the path"
            raise ConfigError(f"app: there is no module {error.name!r} {where}") from None
        raise ConfigError(f"app: importing {name} failed: {describe_error(error)}") from error
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(f"app: importing {name} failed: {describe_error(error)}") from error


def _find(module: ModuleType, attribute: str) -> object:
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError:
        hint = _apps_in(module)
        raise ConfigError(f"app: {module.__name__} has no attribute {attribute!r}{hint}") from None


def _apps_in(module: ModuleType) -> str:
    apps = [name for name, value in vars(module).items() if isinstance(value, Declarations)]
    return f"; its Apps are: {', '.join(apps)}" if apps else ""

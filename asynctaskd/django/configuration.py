"""What a project's settings say: the dict `ASYNCTASKD`, and where `DATABASES` leads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.utils.module_loading import import_string

from asynctaskd.definitions.loader import load_app

if TYPE_CHECKING:
    from asynctaskd.definitions.declarations import Declarations

# What a daemon's connection needs too; other options of Django's belong to Django's connections.
_SHARED_OPTIONS = (
    "passfile",
    "service",
    "servicefile",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslpassword",
    "sslrootcert",
    "target_session_attrs",
)
_BACKEND = "asynctaskd.django.backend"
_KEYS = ("APP", "DATABASE", "SCHEMA")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings `ASYNCTASKD`.

    Attributes:
        app: where the project's App is, `module:attribute`; None: it has none.
        database: the alias of the database that holds the tasks.
        schema: where asynctaskd's tables are.
    """

    app: str | None
    database: str
    schema: str


def configuration() -> Configuration:
    """What the settings say now.

    Raises:
        ImproperlyConfigured: a key is unknown.
    """
    given = getattr(settings, "ASYNCTASKD", {})
    for key in given:
        if key not in _KEYS:
            raise ImproperlyConfigured(f"ASYNCTASKD has no key {key!r}; it has {', '.join(_KEYS)}")
    return Configuration(
        app=given.get("APP"),
        database=given.get("DATABASE", "default"),
        schema=given.get("SCHEMA", "asynctaskd"),
    )


def project_app() -> Declarations | None:
    """The project's App, or None where the settings name none; raises ConfigError where it isn't there."""
    path = configuration().app
    return None if path is None else _loaded(path)


@cache
def _loaded(path: str) -> Declarations:
    return load_app(path)


def database_url(alias: str) -> str:
    """The URL of one of the project's databases, its password included: never log it.

    Raises:
        ImproperlyConfigured: it isn't PostgreSQL.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql":
        raise ImproperlyConfigured(f"asynctaskd needs PostgreSQL, and DATABASES[{alias!r}] isn't")
    given = connection.settings_dict
    options = {name: given["OPTIONS"][name] for name in _SHARED_OPTIONS if name in given["OPTIONS"]}
    address = {"host": given["HOST"], "port": given["PORT"]}
    query = urlencode({name: value for name, value in (address | options).items() if value})
    name = quote(given["NAME"] or "", safe="")
    return f"postgresql://{_credentials(given)}/{name}{query and '?'}{query}"


def tasks_module() -> str | None:
    """Where Django's tasks are: in Django 6, else in the package django-tasks, or nowhere."""
    return next(filter(find_spec, ("django.tasks", "django_tasks")), None)


def has_our_backend() -> bool:
    """Whether one of the backends in the settings `TASKS` is asynctaskd's, or made of it."""
    backends = [import_string(given["BACKEND"]) for given in getattr(settings, "TASKS", {}).values()]
    return any(kind.__module__ == _BACKEND for backend in backends for kind in backend.__mro__)


def _credentials(given: dict[str, Any]) -> str:
    if not given["USER"]:
        return ""
    password = f":{quote(given['PASSWORD'], safe='')}" if given["PASSWORD"] else ""
    return f"{quote(given['USER'], safe='')}{password}@"

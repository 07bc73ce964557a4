"""Settings of the project. The database is the one in SHOP_DSN, or the one that a test puts in its place."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit


def database_at(dsn: str) -> dict[str, Any]:
    """An entry of DATABASES."""
    url = urlsplit(dsn)
    given = dict(parse_qsl(url.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path[1:],
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": given.get("host") or url.hostname or "",
        "PORT": given.get("port") or str(url.port or ""),
        # Tests drop their databases.
        "CONN_MAX_AGE": 0,
    }


SECRET_KEY = "of a test"
USE_TZ = True
TIME_ZONE = "Europe/Vienna"
DATABASES = {
    "default": database_at(os.environ.get("SHOP_DSN", "postgresql:///nowhere")),
    "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
INSTALLED_APPS = [
    *(["django_tasks"] if find_spec("django.tasks") is None else []),
    "asynctaskd.django",
    "tests.support.shop",
]
ASYNCTASKD = {"APP": "tests.support.shop.background:app"}
TASKS = {
    "default": {"BACKEND": "asynctaskd.django.TasksBackend", "QUEUES": ["default", "mail"]},
    "patient": {
        "BACKEND": "asynctaskd.django.TasksBackend",
        "OPTIONS": {"retry": "1ms", "timeout": "1m", "tags": ["patient"]},
    },
    "hasty": {"BACKEND": "asynctaskd.django.TasksBackend", "OPTIONS": {"timeout": "1ms"}},
}

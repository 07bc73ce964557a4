"""The Django app: its checks, and the schema that comes with `manage.py migrate`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db.models.signals import post_migrate
from django.utils.connection import ConnectionDoesNotExist

from asynctaskd.django.configuration import configuration, database_url, project_app
from asynctaskd.errors import ConfigError
from asynctaskd.postgres.migrate import migrate


class AsynctaskdConfig(AppConfig):
    """`INSTALLED_APPS = [..., "asynctaskd.django"]`."""

    name = "asynctaskd.django"
    label = "asynctaskd"
    verbose_name = "asynctaskd"

    def ready(self) -> None:
        """Listen for migrations, and offer the check."""
        post_migrate.connect(migrate_schema, sender=self)
        checks.register(check_settings)


def migrate_schema(using: str, verbosity: int = 1, **told: Any) -> None:
    """Bring asynctaskd's schema up to this version, after Django has migrated the database that holds it."""
    settings = configuration()
    if using != settings.database or "plan" not in told:  # `flush` sends the signal too
        return
    applied = asyncio.run(migrate(database_url(using), schema=settings.schema))
    if applied and verbosity:
        out: Any = told.get("stdout") or sys.stdout
        out.write(f"Applied {len(applied)} migrations of asynctaskd\n")


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """What is wrong with `ASYNCTASKD` in the settings."""
    try:
        database_url(configuration().database)
        project_app()
    except (ImproperlyConfigured, ConnectionDoesNotExist, ConfigError) as error:
        return [checks.Error(str(error), id="asynctaskd.E001")]
    return []

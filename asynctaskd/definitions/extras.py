"""Parts of asynctaskd that are installed only where they are wanted."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from asynctaskd.errors import ConfigError

GENERATE = ("datamodel_code_generator", "email_validator", "jsonschema", "ruff", "yaml")
"""What the extra `generate` brings."""

DASHBOARD = ("itsdangerous", "jinja2", "python_multipart")
"""What the extra `dashboard` brings."""


def require_extra(extra: str, modules: Iterable[str]) -> None:
    """See that an extra is installed.

    Raises:
        ConfigError: a module of it is missing.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} isn't installed: pip install 'asynctaskd[{extra}]'")

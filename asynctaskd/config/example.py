"""What does the configuration look like as a file? The text of config.example.toml."""

from __future__ import annotations

import json
import textwrap
from datetime import timedelta

from asynctaskd.config.daemon import Section
from asynctaskd.config.settings import SECTIONS, SETTINGS, Setting
from asynctaskd.durations import format_duration

_HEAD = """\
# The configuration of asynctaskd. Every key stands here with its default; a key without one is commented out.
#
# Precedence: defaults < this file < environment ASYNCTASKD_<SECTION>_<KEY> < flags.
# Durations are written 500ms, 5s, 30m, 1h30m, 2h or 1d.
"""


def render_example() -> str:
    """The text of config.example.toml: every key with its description, variable and default."""
    return "\n".join([_HEAD, *(_section(name, model) for name, model in SECTIONS.items())])


def _section(name: str, model: type[Section]) -> str:
    entries = (_entry(setting) for setting in SETTINGS.values() if setting.section == name)
    return f"# {model.__doc__}\n[{name}]\n\n" + "\n".join(entries)


def _entry(setting: Setting) -> str:
    comment = _comment(setting.description) + _comment(f"Takes {setting.expects}. {setting.variable}")
    if setting.default is None:
        return f"{comment}# {setting.name} = {_toml_value(setting.example)}\n"
    return f"{comment}{setting.name} = {_toml_value(setting.default)}\n"


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, 98, break_on_hyphens=False, break_long_words=False)
    return "".join(f"# {line}\n" for line in lines)


def _toml_value(value: object) -> str:
    return json.dumps(format_duration(value) if isinstance(value, timedelta) else value)

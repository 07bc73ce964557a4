from __future__ import annotations

import re

import pytest
from typer.main import get_command

from asynctaskd import __version__
from asynctaskd.cli import commands
from asynctaskd.config import SETTINGS

COMMANDS = ["run", "demo", "migrate", "check", "enqueue", "tasks list", "tasks show", "tasks wait", "workers"]
FLAGS = {
    "database.url": COMMANDS,
    "database.schema": COMMANDS,
    "worker.concurrency": ["run"],
    "worker.labels": ["run"],
}


def help_of(bare, command: str) -> str:
    result = bare.run(*command.split(), "--help")
    assert result.exit_code == 0
    return result.stdout


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize(
    "key,command", [(key, command) for key, of in FLAGS.items() for command in of if command != "demo"]
)
def test_the_help_of_a_flag_is_the_description_of_its_setting(bare, key, command):
    setting = SETTINGS[key]
    text = help_of(bare, command)
    assert setting.flag in text
    assert squeezed(f"{setting.description} [env var: {setting.variable}]") in squeezed(text)


def test_a_default_is_never_a_value_of_a_flag():
    """A flag that wasn't given must not win over the file."""
    for command in get_command(commands.cli).commands.values():
        for parameter in command.params:
            if any(f"--{setting.name}" in parameter.opts for setting in SETTINGS.values()):
                assert parameter.default is None


def test_commands_are_listed_in_the_order_one_needs_them_with_a_whole_sentence_each(bare):
    text = bare.run("--help").stdout
    listed = text.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == [
        "run", "demo", "init", "migrate", "check", "enqueue", "tasks", "workers", "top", "dashboard",
        "config", "labels", "cron", "generate", "spec", "release",
    ]  # fmt: skip
    assert all(line.endswith(".") and "..." not in line for line in listed)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_and_fits_80_columns(bare, command):
    text = help_of(bare, command)
    assert re.search(rf"Example:\n +asynctaskd {command}", text)
    assert max(map(len, text.splitlines())) <= 80


def test_without_a_command_the_help_is_wrong_usage(bare):
    result = bare.run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Commands:" in result.stderr


def test_the_version_is_printed(bare):
    assert bare.run("--version").stdout == f"asynctaskd {__version__}\n"


def test_the_module_is_the_command(start):
    process = start("--version")
    assert process.exit_code() == 0
    assert process.stdout == [f"asynctaskd {__version__}"]

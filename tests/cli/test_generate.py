from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from asynctaskd.definitions import extras
from asynctaskd.definitions.extras import GENERATE

TASKS = """
tasks:
  - name: SendEmail
    parameters:
      required: [userId]
      properties: {userId: {type: integer, format: int32}}
"""


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tasks.yaml in the current directory."""
    monkeypatch.chdir(tmp_path)
    path = Path("tasks.yaml")
    path.write_text(TASKS)
    return path


def test_a_module_is_written_once_and_found_up_to_date_then(bare, tasks: Path):
    first = bare.run("generate", "tasks.yaml")
    assert (first.exit_code, first.stdout, first.stderr) == (0, "tasks_gen.py: 1 task\n", "")
    written = Path("tasks_gen.py").stat()
    again = bare.run("generate", "tasks.yaml")
    assert (again.exit_code, again.stdout) == (0, "tasks_gen.py: 1 task, up to date\n")
    assert Path("tasks_gen.py").stat().st_mtime_ns == written.st_mtime_ns
    assert "class SendEmailParams" in Path("tasks_gen.py").read_text()


def test_the_module_may_go_elsewhere(bare, tasks: Path):
    Path("shop").mkdir()
    assert bare.run("generate", "tasks.yaml", "-o", "shop/jobs.py").exit_code == 0
    assert bare.run("generate", "tasks.yaml", "--output", "shop/jobs.py", "--check").exit_code == 0
    assert not Path("tasks_gen.py").exists()


def test_a_check_writes_nothing_and_tells_what_is_stale(bare, tasks: Path):
    missing = bare.run("generate", "tasks.yaml", "--check")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert missing.stderr.splitlines()[-1] == (
        "error: tasks_gen.py is stale: run `asynctaskd generate tasks.yaml`"
    )
    assert not Path("tasks_gen.py").exists()

    bare.run("generate", "tasks.yaml")
    before = Path("tasks_gen.py").read_text()
    tasks.write_text(TASKS.replace("int32", "int64"))
    stale = bare.run("generate", "tasks.yaml", "--check")
    assert (stale.exit_code, stale.stdout) == (1, "")
    lines = stale.stderr.splitlines()
    assert lines[:2] == ["--- tasks_gen.py, as it is", "+++ tasks_gen.py, as it should be"]
    assert "-Int32 = TypeAliasType(" in "".join(lines)
    assert len(lines) <= 21
    assert Path("tasks_gen.py").read_text() == before


def test_a_file_that_is_wrong_exits_78_with_all_its_problems(bare, tasks: Path):
    tasks.write_text("tasks:\n- name: a\n  timeout: 0s\n- name: a\n  weight: 0\n  labls: []\n")
    result = bare.run("generate", "tasks.yaml")
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.splitlines() == [
        "error: tasks.yaml:3:12: timeout must be more than 0, got '0s'",
        "error: tasks.yaml:4:9: task 'a' is defined in line 2 already",
        "error: tasks.yaml:5:11: weight must be at least 1, got 0",
    ]
    assert not Path("tasks_gen.py").exists()


def test_a_warning_is_told_and_hinders_nothing(bare, tasks: Path):
    tasks.write_text("tasks:\n- name: a\n  labls: []\n")
    result = bare.run("generate", "tasks.yaml")
    assert (result.exit_code, result.stdout) == (0, "tasks_gen.py: 1 task\n")
    assert result.stderr == (
        "warning: tasks.yaml:3:3: unknown key 'labls' is passed over; the nearest known one is 'labels'\n"
    )


def test_a_file_that_was_not_generated_is_never_overwritten(bare, tasks: Path):
    Path("app.py").write_text("mine = True\n")
    result = bare.run("generate", "tasks.yaml", "-o", "app.py")
    assert result.exit_code == 2
    assert "app.py wasn't generated" in result.stderr
    assert Path("app.py").read_text() == "mine = True\n"


def test_a_file_that_cannot_be_written_is_an_error(bare, tasks: Path):
    result = bare.run("generate", "tasks.yaml", "-o", "nowhere/gen.py")
    assert (result.exit_code, result.stderr) == (
        1, "error: nowhere/gen.py can't be written: No such file or directory\n",
    )  # fmt: skip
    assert bare.run("generate", "tasks.yaml", "-o", ".").exit_code == 1


def test_a_file_that_is_not_there_exits_78(bare, tasks: Path):
    result = bare.run("generate", "none.yaml")
    assert (result.exit_code, result.stderr) == (
        78, "error: none.yaml: can't be read: No such file or directory\n",
    )  # fmt: skip


def test_without_its_extra_the_command_says_how_to_install_it(
    bare, tasks: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(extras, "find_spec", lambda module: None if module == "yaml" else object())
    result = bare.run("generate", "tasks.yaml")
    assert (result.exit_code, result.stderr) == (
        78, "error: yaml isn't installed: pip install 'asynctaskd[generate]'\n",
    )  # fmt: skip


@pytest.mark.parametrize("start", ["import asynctaskd", "import asynctaskd.cli.commands"])
def test_nobody_else_pays_for_the_extra(start: str):
    program = f"{start}\nimport sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & {*GENERATE, "asynctaskd.definitions.spec.source"}

"""`asynctaskd init`: what it writes, what it refuses, what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from asynctaskd.cli.commands import cli


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*arguments: str, code: int = 0) -> str:
    """What it says, on either stream."""
    result = CliRunner().invoke(cli, ["init", *arguments], prog_name="asynctaskd")
    assert result.exit_code == code, result.output
    return result.output


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_it_writes_a_package_of_the_directorys_name(work: Path) -> None:
    init("book-shop")
    assert {
        "book-shop/.gitignore", "book-shop/README.md", "book-shop/config.toml", "book-shop/pyproject.toml",
        "book-shop/book_shop/tasks.yaml", "book-shop/book_shop/tasks_gen.py", "book-shop/book_shop/app.py",
    } <= files(work)  # fmt: skip


def test_without_a_directory_it_writes_to_this_one(work: Path) -> None:
    told = init("--name", "shop")
    assert "shop/app.py" in files(work)
    assert "cd " not in told


def test_files_that_are_there_are_named_and_nothing_is_written(work: Path) -> None:
    (work / "README.md").write_text("mine")
    (work / "config.toml").symlink_to("nowhere")
    assert "already: README.md, config.toml;" in init("--name", "shop", code=1)
    assert files(work) == {"README.md"}
    assert (work / "README.md").read_text() == "mine"


def test_what_else_is_in_the_directory_stays(work: Path) -> None:
    (work / "shop").mkdir()
    (work / "shop" / "models.py").write_text("mine")
    init("--name", "shop")
    assert (work / "shop" / "models.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["9lives", "two words", "class", "a.b", "_x", "ümlaut", ""])
def test_a_name_that_is_no_identifier_is_refused(work: Path, name: str) -> None:
    assert "must be a Python identifier" in init("--name", name, "1", code=2)
    assert files(work) == set()


@pytest.mark.parametrize("name", ["json", "asynctaskd", "tests"])
def test_a_name_that_would_hide_another_package_is_refused(work: Path, name: str) -> None:
    assert "would hide" in init(name, code=2)
    assert files(work) == set()


def test_what_cannot_be_written_is_told(work: Path) -> None:
    (work / "file").touch()
    assert "can't be written" in init("file", "--name", "shop", code=1)

"""The checks of deploy/ as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.check import __main__ as program
from deploy.check.tools import MissingToolError, find


def test_a_finding_makes_it_fail(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(program, "KINDS", {"good": lambda _: [], "bad": lambda _: ["one thing"]})
    assert program.main([]) == 1
    assert capsys.readouterr().out == "good: ok\nbad: one thing\n"
    assert program.main(["good"]) == 0


def test_a_validator_that_cant_be_had_makes_it_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(_: Path) -> list[str]:
        raise MissingToolError("there is no such tool: install it")

    monkeypatch.setattr(program, "KINDS", {"odd": check})
    assert program.main([]) == 1
    assert capsys.readouterr().out == "odd: can't be checked: there is no such tool: install it\n"


def test_a_kind_that_isnt_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["dcoker"]) == 2
    assert "no check of dcoker" in capsys.readouterr().err


def test_a_program_that_isnt_there_is_named_with_a_remedy() -> None:
    with pytest.raises(MissingToolError, match=r"no-such or not-either isn't there: install one"):
        find("no-such", "not-either", remedy="install one")

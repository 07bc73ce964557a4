"""`asynctaskd top`: what it draws and what keys do, without a terminal; and once in one."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from asynctaskd.cli.terminal import keys_of
from asynctaskd.cli.top import told
from asynctaskd.cli.top_keys import State, by_backlog, change_of, chosen, react
from asynctaskd.cli.top_view import draw, shared
from asynctaskd.config import RuntimeConfig
from asynctaskd.config.convergence import ConfigReport
from asynctaskd.control.fleet import (
    GroupState,
    HandlerState,
    LimitState,
    OpenCommand,
    Overview,
    StrictState,
    WorkerState,
)

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def group(name: str, weight: int = 1, **facts: Any) -> GroupState:
    given = {
        "ready": 0,
        "is_more": False,
        "running": 0,
        "oldest": None,
        "oldest_age": None,
        "is_paused": False,
    }
    return GroupState(name=name, weight=weight, **given | facts)


def worker(number: int = 1, **facts: Any) -> WorkerState:
    given: dict[str, Any] = {
        "id": UUID(int=number << 96), "name": UUID(int=number), "host": f"host:{number}", "labels": ("a",),
        "running": 3, "concurrency": 10, "strict": 1, "strict_cap": 2, "silent": 1.5, "config_version": 7,
        "rejected": None, "rejected_because": None, "stall": None,
    }  # fmt: skip
    return WorkerState(**given | facts)


def overview(**facts: Any) -> Overview:
    given: dict[str, Any] = {
        "at": NOW,
        "config": RuntimeConfig(version=7, weights={"a": 5, "b": 2}, paused_labels=["b"]),
        "groups": [group("a", 5), group("b", 2, is_paused=True), group("default")],
        "strict": StrictState(ready=4, is_more=False, running=1, cap=2, oldest=9, oldest_age=0.25),
        "workers": [worker()],
        "limits": [],
        "handlers": [],
        "commands": [],
    }
    return Overview(**given | facts)


def drawn(shown: Overview, state: State | None = None, *, width: int = 120, height: int | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False, emoji=False)
    console.print(draw(shown, state, height=height, width=width))
    return out.getvalue()


def pressed(keys: str, state: State | None = None) -> State:
    now = state or State()
    for key in keys.split():
        now = react(now, key, overview())
    return now


# Drawing


def test_groups_show_weights_shares_backlog_and_the_oldest() -> None:
    first = group(
        "a", 5, wanted=5 / 6, had=0.8, ready=10_000, is_more=True, running=12, oldest=17, oldest_age=7300.0
    )
    text = drawn(overview(groups=[first, group("default")]))
    line = next(line for line in text.splitlines() if line.startswith("  a "))
    assert line.split() == ["a", "5", "83.3%", "80.0%", "10,000+", "12", "2", "h", "1", "min", "(17)"]
    assert "strict lane: 4 ready, 1 running of 2 at most, oldest 250 ms (9)" in text


def test_workers_show_slots_silence_version_and_what_is_wrong() -> None:
    late = worker(2, silent=12.0, config_version=6, rejected=7, rejected_because="too new")
    stalled = worker(3, stall={"task": "spin", "task_id": 5, "seconds": 4.2})
    text = drawn(overview(workers=[worker(), late, stalled]))
    assert "3/10" in text
    assert "6 of 7  rejected 7: too new" in text
    assert "blocked 4 s by spin" in text
    assert "no worker is live" in drawn(overview(workers=[]))


def test_slow_handlers_limits_pauses_and_commands_are_shown() -> None:
    text = drawn(
        overview(
            handlers=[
                HandlerState(
                    name="mail", running=2, longest=61.0, longest_id=8, finished=40, failed=1, mean=0.2,
                    p95=1.25,
                )
            ],
            limits=[LimitState(label="eu", running=3, limit=3)],
            commands=[
                OpenCommand(
                    request_id=UUID(int=1), action="cancel", requested_by="ada", requested_at=NOW, open=3,
                    workers=[UUID(int=1 << 96)],
                )
            ],
        )
    )  # fmt: skip
    assert re.search(r"mail +2 +1 min 1 s \(8\) +40 +1 +200 ms +1\.2 s", text)
    assert "limit of eu: 3 of 3 run" in text
    assert "paused labels: b" in text
    assert "cancel by ada, 0 ms ago: 3 tasks to go on host:1" in text


def test_nothing_from_the_data_reaches_the_terminal_as_an_escape() -> None:
    text = drawn(
        overview(workers=[worker(host="\x1b[31mred"), worker(2, stall={"task": "\x1b]0;x", "seconds": 1})])
    )
    assert "\x1b" not in text


def test_a_low_screen_shows_the_chosen_group_and_counts_what_is_hidden() -> None:
    groups = [group(f"g{number:02}") for number in range(40)]
    shown = overview(groups=groups, workers=[worker(number) for number in range(1, 41)])
    text = drawn(shown, State(group="g30"), height=30)
    assert "› g30" in text
    assert "g01" not in text
    assert text.count("  and 3") == 2
    assert len(text.splitlines()) in (29, 30)


@pytest.mark.parametrize("height", [24, 30, 41, 80])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_whole_height_is_used_and_not_more(height: int, width: int) -> None:
    handler = HandlerState(
        name="mail", running=2, longest=61.0, longest_id=8, finished=40, failed=1, mean=0.2, p95=1.25
    )
    shown = overview(groups=[group(f"g{number:03}") for number in range(100)], handlers=[handler])
    text = drawn(shown, State(is_helping=True), height=height, width=width)
    assert height - 3 <= len(text.splitlines()) <= height
    assert re.search(r"^  and \d+ more$", text, re.MULTILINE)


def test_lines_are_shared_so_that_nobody_wants_what_another_does_not_need() -> None:
    assert shared((50, 2, 0), 20) == [17, None, None]
    assert shared((50, 50, 1), 21) == [9, 9, None]
    assert shared((5, 5, 5), 15) == [None, None, None]
    assert shared((50, 50, 50), 0) == [2, 2, 2]


def test_the_group_that_has_a_backlog_comes_first() -> None:
    groups = [group("a"), group("b", ready=7), group("c", ready=9), group("default")]
    ordered = by_backlog(overview(groups=groups)).groups
    assert [one.name for one in ordered] == ["c", "b", "a", "default"]


def test_a_long_label_is_shortened_and_pushes_nothing_off_a_narrow_screen() -> None:
    one = group("x" * 100, 5, wanted=1 / 3, had=0.25, ready=9_999, running=12, oldest=17, oldest_age=7300.0)
    text = drawn(overview(groups=[one]), State(), width=60, height=40)
    line = next(line for line in text.splitlines() if line.startswith("› x"))
    assert line.split()[:7] == ["›", line.split()[1], "5", "33.3%", "25.0%", "9,999", "12"]
    assert line.split()[1].startswith("xxx")
    assert line.split()[1].endswith("…")


def test_what_is_pending_is_shown_beside_what_holds() -> None:
    text = drawn(overview(), State(group="a", weights={"a": 9}, pauses={"b": False, "a": True}))
    assert "5 → 9" in text
    assert "→ paused" in text
    assert "paused → not" in text
    assert "press enter" in text


def test_help_and_the_last_answer_are_shown_below() -> None:
    assert "choose a group" in drawn(overview(), State(is_helping=True))
    assert "choose a group" not in drawn(overview(), State())
    assert "version 8 is applied" in drawn(overview(), State(said="version 8 is applied by host:1"))


# Keys


def test_arrows_choose_a_group_and_stop_at_the_ends() -> None:
    assert chosen(State(), overview()).name == "a"
    assert pressed("down").group == "b"
    assert pressed("down down down down").group == "default"
    assert pressed("down down up up up").group == "a"
    assert chosen(State(group="gone"), overview()).name == "a"


def test_plus_and_minus_change_the_weight_that_is_shown_and_nothing_else() -> None:
    assert pressed("+ + +").weights == {"a": 8}
    assert pressed("+ + - -").weights == {}
    assert pressed("- - - - - - - -").weights == {"a": 1}
    assert pressed("+ down -").weights == {"a": 6, "b": 1}
    assert pressed("+ down down +").weights == {"a": 6, "default": 2}


def test_p_pauses_or_unpauses_the_label_of_the_group() -> None:
    assert pressed("p").pauses == {"a": True}
    assert pressed("p p").pauses == {}
    assert pressed("down p").pauses == {"b": False}
    refused = pressed("down down p")
    assert (refused.pauses, refused.said) == ({}, "the group default has no label that could be paused")


def test_escape_drops_what_is_pending_and_other_keys_do_nothing() -> None:
    assert not pressed("+ p escape").is_pending
    assert pressed("x y up") == State(group="a")
    assert pressed("?").is_helping
    assert not pressed("? ?").is_helping


def test_a_change_holds_whole_mappings_with_only_what_was_chosen_changed() -> None:
    assert change_of(pressed("+"), overview()) == {"weights": {"a": 6, "b": 2}}
    assert change_of(pressed("down down + +"), overview()) == {"default_weight": 3}
    assert change_of(pressed("p down p"), overview()) == {"paused_labels": ["a"]}
    assert change_of(pressed("p"), overview()) == {"paused_labels": ["b", "a"]}
    assert change_of(State(), overview()) == {}


@pytest.mark.parametrize(
    "sent,keys",
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[B", ["up", "down"]),
        ("\x1bOA+", ["up", "+"]),
        ("\x1b", ["escape"]),
        ("\r\n", ["enter", "enter"]),
        ("\x1b[5~\x1b[1;5Cp", ["p"]),
        ("\x1b[", []),
        ("", []),
    ],
)
def test_what_a_terminal_sends_is_read_as_keys(sent: str, keys: list[str]) -> None:
    assert keys_of(sent) == keys


def test_what_became_of_a_change_names_who_answered() -> None:
    one, other = UUID(int=1), UUID(int=2)
    report = ConfigReport(
        version=8,
        status="not_converged",
        applied=(one,),
        lagging=(other,),
        rejected={},
        hosts={one: "h:1", other: "h:2"},
    )
    assert told(report) == "version 8 is applied by h:1; not in time by h:2"


# The command


def test_one_snapshot_is_printed_where_there_is_no_terminal(cli) -> None:
    cli.enqueue("add", "{}", "--labels", "a")
    result = cli.run("top", "--interval", "10ms")
    assert result.exit_code == 0, result.stderr
    assert "no worker is live" in result.stdout
    assert re.search(r"default +1 +– +– +1 +0", result.stdout)
    assert "\x1b" not in result.stdout


def test_json_is_one_object_of_all_that_is_shown(cli, start) -> None:
    cli.run("config", "set", "weights.a=3", "limits.a=2")
    task_id = cli.enqueue("add", "{}", "--labels", "a")
    shown = cli.json("top", "--interval", "10ms")
    assert list(shown) == [
        "at", "config", "config_problem", "groups", "strict", "workers", "limits", "handlers", "commands",
        "rate",
    ]  # fmt: skip
    first, default = shown["groups"]
    assert (first["name"], first["weight"], first["ready"], first["oldest"]) == ("a", 3, 1, task_id)
    assert (default["name"], shown["limits"]) == ("default", [{"label": "a", "running": 0, "limit": 2}])


def test_a_malformed_interval_exits_2(cli) -> None:
    for interval in ("often", "0s"):
        result = cli.run("top", "--once", "--interval", interval)
        assert result.exit_code == 2
        assert "--interval" in result.stderr


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(self, *args: str, **environ: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "asynctaskd", *args],
            stdin=slave, stdout=slave, stderr=slave, close_fds=True, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40", **environ},
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def await_text(self, part: str) -> None:
        """Until something is on the screen, or the process has ended."""
        until = time.monotonic() + 60
        while part not in self.text:
            assert time.monotonic() < until, f"no {part!r} in {self.text[-3000:]}"
            if select.select([self._master], [], [], 0.5)[0]:
                self.text += self._read()

    def press(self, keys: str) -> None:
        self.text = ""
        os.write(self._master, keys.encode())

    def exit_code(self) -> int:
        while self._read():  # whoever leaves may still draw
            pass
        return self._process.wait(60)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the other side is closed
            return ""


def test_in_a_terminal_keys_change_a_weight_once_it_is_confirmed(cli) -> None:
    cli.run("config", "set", "weights.a=3")
    terminal = Terminal("top", "--interval", "50ms", ASYNCTASKD_DATABASE_URL=cli.dsn)
    try:
        terminal.await_text("configuration 1")
        terminal.press("+")
        terminal.await_text("3 → 4")
        assert cli.json("config", "show")["weights"] == {"a": 3}
        terminal.press("\r")
        terminal.await_text("version 2 is applied by nobody: no worker is live")
        terminal.await_text("configuration 2")
        assert cli.json("config", "show")["weights"] == {"a": 4}
        terminal.press("q")
        assert terminal.exit_code() == 0
    finally:
        terminal.close()
    assert not cli.sql("SELECT FROM asynctaskd.watchers WHERE expires_at > clock_timestamp()")


def test_ctrl_c_leaves_too(cli) -> None:
    terminal = Terminal("top", "--interval", "50ms", ASYNCTASKD_DATABASE_URL=cli.dsn)
    try:
        terminal.await_text("GROUP")
        terminal._process.send_signal(2)
        assert terminal.exit_code() == 0
    finally:
        terminal.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_is_ended_gives_the_terminal_back(cli, number: signal.Signals) -> None:
    terminal = Terminal("top", "--interval", "50ms", ASYNCTASKD_DATABASE_URL=cli.dsn)
    try:
        terminal.await_text("GROUP")
        terminal.press("")
        terminal._process.send_signal(number)
        terminal.await_text("\x1b[?1049l")  # out of the alternate screen
        terminal.await_text("\x1b[?25h")  # with a cursor
        assert terminal.exit_code() == 128 + number
    finally:
        terminal.close()
    assert not cli.sql("SELECT FROM asynctaskd.watchers WHERE expires_at > clock_timestamp()")

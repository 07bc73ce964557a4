"""A worker below a service manager: what it says on its socket, and what it does when told to reload."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGHUP, SIGTERM
from typing import Any

import pytest

LONG_ENOUGH = 60.0


class Manager:
    """A service manager's socket, and all that was said to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._socket, self._hear)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            while True:
                text = self._socket.recv(4096).decode()
                self.heard.append(dict(line.split("=", 1) for line in text.split("\n")))
                self._news.set()

    async def until(self, after: int = 0, /, **said: str) -> int:
        """Until a message says that, from the given place on; returns the place after it."""
        return await self._until(lambda message: message.items() >= said.items(), after)

    async def until_status(self, word: str) -> None:
        """Until a status contains that word."""
        await self._until(lambda message: word in message.get("STATUS", ""))

    async def _until(self, suits: Callable[[dict[str, str]], bool], after: int = 0) -> int:
        async with asyncio.timeout(LONG_ENOUGH):
            while True:
                for place, message in enumerate(self.heard[after:], after):
                    if suits(message):
                        return place + 1
                self._news.clear()
                await self._news.wait()

    def said(self, name: str) -> list[str]:
        """All that was said of it, what still lies in the socket included."""
        self._hear()
        return [message[name] for message in self.heard if name in message]

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


@pytest.fixture
async def manager(tmp_path: Path):
    opened = Manager(tmp_path / "notify")
    yield opened
    opened.close()


@pytest.fixture
def below(worker, manager):
    """A worker below that manager."""

    def start(*dsn: str, environ: dict[str, str] | None = None, **own: Any):
        told = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000"}
        return worker(*dsn, environ={**told, **(environ or {})}, **own)

    return start


def rewrite(tmp_path: Path, *lines: str, section: str = "worker") -> None:
    """Change the worker's file: those lines instead of the ones with the same keys."""
    path = tmp_path / "1.toml"
    keys = {line.split(" = ")[0] for line in lines}
    kept = [line for line in path.read_text().splitlines() if line.split(" = ")[0] not in keys]
    place = kept.index(f"[{section}]") + 1
    path.write_text("\n".join([*kept[:place], *lines, *kept[place:], ""]))


async def test_it_is_ready_once_it_has_its_lease_and_says_how_it_is(below, manager, client, witness, go_on):
    async with below() as process:
        await manager.until(READY="1")
        await manager.until(STATUS="0 running, 0 waiting, config v0")
        await process.until_logged("worker.started")
        task_id = await client.enqueue("hold")
        await witness.until("start", task_id)
        await manager.until(STATUS="1 running, 0 waiting, config v0")
        go_on.touch()
        process.tell(SIGTERM)
        await manager.until(STOPPING="1")
        assert await process.ended() == 0
    assert manager.said("READY") == ["1"]


async def test_what_it_waits_for_is_said_and_more_time_asked_for(below, manager, proxy):
    proxy.refuse()
    async with below(proxy.dsn) as process:
        await manager.until(EXTEND_TIMEOUT_USEC="15000000")
        await process.until_logged("database.lost")
        await manager.until_status("unavailable")
        assert not manager.said("READY")
        await proxy.restore()
        await manager.until(READY="1")


async def test_the_watchdog_is_fed_while_the_database_is_away(below, manager, proxy):
    async with below(proxy.dsn, lease="30s") as process:
        place = await manager.until(await manager.until(READY="1"), WATCHDOG="1")
        proxy.refuse()
        proxy.cut()
        await process.until_logged("database.lost")
        for _ in range(3):
            place = await manager.until(place, WATCHDOG="1")
        await proxy.restore()
        await process.until_logged("database.restored")
        assert len(manager.said("READY")) == 1


async def test_it_is_not_fed_once_the_loop_stands_still_past_the_limit(below, manager, client, witness):
    async with below(stall_limit="2s", lease="30s") as process:
        await manager.until(READY="1")
        task_id = await client.enqueue("block")
        await witness.until("start", task_id)
        await process.until_logged("worker.gave_up")
        fed = len(manager.said("WATCHDOG"))
        assert await process.ended() == 70
        assert len(manager.said("WATCHDOG")) == fed


async def test_a_drain_that_takes_long_asks_for_time_until_it_ends(below, manager, client, witness, go_on):
    async with below(grace="30s") as process:
        await manager.until(READY="1")
        task_id = await client.enqueue("hold")
        await witness.until("start", task_id)
        process.tell(SIGTERM)
        place = await manager.until(STOPPING="1")
        place = await manager.until(place, EXTEND_TIMEOUT_USEC="15000000")
        await manager.until(place, EXTEND_TIMEOUT_USEC="15000000")
        go_on.touch()
        assert await process.ended() == 0


async def test_a_reload_is_said_and_takes_on_what_can_change(
    below, manager, client, witness, tmp_path, tables
):
    async with below(concurrency=1) as process:
        await manager.until(READY="1")
        held = [await client.enqueue("hold") for _ in range(2)]
        waits = await client.enqueue("hold", labels=["eu"])
        await witness.until("start", held[0])
        await tables.until_status(held[1], "pending")
        rewrite(tmp_path, "concurrency = 3", 'labels = ["eu"]', 'grace = "20s"')
        process.tell(SIGHUP)
        place = await manager.until(RELOADING="1")
        assert "MONOTONIC_USEC" in manager.heard[place - 1]
        await manager.until(place, READY="1")
        await witness.until("start", held[1])
        await witness.until("start", waits)
        told = await process.until_logged("config_file.read")
        await tables.until("SELECT concurrency = 3 AND 'eu' = ANY (labels) FROM asynctaskd.workers")
    assert told["changed"] == ["worker.concurrency", "worker.labels", "worker.grace"]
    assert told["takes_restart"] == []


async def test_labels_that_are_gone_are_claimed_no_more_and_what_runs_goes_on(
    below, manager, client, witness, tmp_path, tables, go_on
):
    async with below(labels=["eu"]) as process:
        await manager.until(READY="1")
        runs = await client.enqueue("hold", labels=["eu"])
        await witness.until("start", runs)
        rewrite(tmp_path, "labels = []")
        process.tell(SIGHUP)
        await manager.until(await manager.until(RELOADING="1"), READY="1")
        left = await client.enqueue("quick", labels=["eu"])
        mine = await client.enqueue("quick")
        assert (await client.wait(mine, timeout="30s")).status == "completed"
        go_on.touch()
        assert (await client.wait(runs, timeout="30s")).status == "completed"
        assert (await tables.row("SELECT status FROM asynctaskd.tasks WHERE id = $1", left))[0] == "pending"


async def test_what_takes_a_restart_is_said(below, manager, tmp_path):
    async with below() as process:
        await manager.until(READY="1")
        rewrite(tmp_path, "enabled = false")
        rewrite(tmp_path, 'level = "debug"', section="log")
        process.tell(SIGHUP)
        await manager.until(await manager.until(RELOADING="1"), READY="1")
        told = await process.until_logged("config_file.read")
    assert (told["changed"], told["takes_restart"]) == (["log.level"], ["worker.enabled"])


async def test_the_level_of_the_log_changes_at_once(below, manager, client, tmp_path):
    async with below() as process:
        await manager.until(READY="1")
        first = await client.enqueue("quick")
        await client.wait(first, timeout="30s")
        rewrite(tmp_path, 'level = "debug"', section="log")
        process.tell(SIGHUP)
        await manager.until(await manager.until(RELOADING="1"), READY="1")
        second = await client.enqueue("quick")
        told = await process.until_logged("task.completed")
    assert (told["task_id"], len(process.events("task.completed"))) == (second, 1)


async def test_a_file_that_is_wrong_keeps_the_old_and_says_why(below, manager, client, tmp_path):
    async with below() as process:
        await manager.until(READY="1")
        rewrite(tmp_path, "concurrency = 0")
        process.tell(SIGHUP)
        await manager.until(await manager.until(RELOADING="1"), READY="1")
        told = await process.until_logged("config_file.refused")
        task_id = await client.enqueue("quick")
        assert (await client.wait(task_id, timeout="30s")).status == "completed"
    assert told["level"] == "error"
    assert "worker.concurrency" in told["error"]

"""A worker under the restrictions of the unit that is shipped, as far as a process can put them on."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path
from textwrap import dedent
from urllib.request import urlopen

import pytest

from tests.support.restricted import can_restrict

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "asynctaskd.service"
PLENTY = 200

pytestmark = pytest.mark.skipif(can_restrict() is not None, reason=can_restrict() or "")

TASKS = """
    import ctypes
    import mmap
    import socket
    import subprocess
    import threading

    app.command_task("program", command=["/bin/sh", "-c", "cat >/dev/null; echo done"])

    @app.task("aio")
    async def aio(n: int) -> int:
        await asyncio.sleep(0)
        return n + 1

    @app.task("sync")
    def sync(n: int) -> str:
        return threading.current_thread().name

    @app.task("shell")
    def shell() -> str:
        return subprocess.run(["uname"], capture_output=True, text=True, check=True).stdout.strip()

    @app.task("resolve")
    async def resolve() -> int:
        return len(await asyncio.get_running_loop().getaddrinfo("localhost", 80))

    def _error(call, *arguments, **options) -> int:
        try:
            call(*arguments, **options)
        except OSError as error:
            return error.errno
        return 0

    def _unshare() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x10000000):
            raise OSError(ctypes.get_errno(), "unshare")

    @app.task("forbidden")
    def forbidden() -> dict:
        writable = mmap.PROT_READ | mmap.PROT_WRITE
        return {
            "executable memory": _error(mmap.mmap, -1, 4096, prot=writable | mmap.PROT_EXEC),
            "plain memory": _error(mmap.mmap, -1, 4096, prot=writable),
            "packets": _error(socket.socket, socket.AF_PACKET, socket.SOCK_RAW),
            "netlink": _error(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW),
            "a user namespace": _error(_unshare),
            "chown": _error(os.chown, ".", os.getuid(), os.getgid()),
            "a nicer self": _error(os.setpriority, os.PRIO_PROCESS, 0, 5),
            "a set-user-ID file": _error(os.chmod, "shop.py", 0o4700),
            "status": dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines()),
            "memory of the machine": _error(open, "/proc/meminfo"),
        }
"""


@pytest.fixture
def restricted(worker, proxy, tmp_path: Path):
    """A worker like the unit's, over TCP: without capabilities it can't open the test server's socket."""
    shop = tmp_path / "shop.py"
    shop.write_text(shop.read_text() + dedent(TASKS))
    below = (sys.executable, "-m", "tests.support.restricted", str(UNIT))
    # The boot's id, as the unit tells it, is shaped otherwise than the kernel's file.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    return worker(proxy.dsn, below=below, environ={"ASYNCTASKD_HTTP_PORT": "0", "_ASYNCTASKD_BOOT": boot})


async def test_a_worker_does_all_of_its_work_under_the_restrictions_of_its_unit(restricted, client, tables):
    async with restricted as process:
        ids = [await client.enqueue(name, {"n": n}) for n in range(PLENTY) for name in ("aio", "sync")]
        ids += [await client.enqueue(name) for name in ("shell", "resolve", "program", "book")]
        done = {task_id: await client.wait(task_id, timeout="30s") for task_id in ids}
        assert {task.status for task in done.values()} == {"completed"}
        assert done[ids[-4]].result == "Linux"
        assert done[ids[1]].result.startswith("asynctaskd-handler")
        told = await process.until_logged("http.serving")
        site = f"http://{told['host']}:{told['port']}"
        assert b'"ready":true' in await asyncio.to_thread(page, f"{site}/readyz")
        assert b"process_resident_memory_bytes" in await asyncio.to_thread(page, f"{site}/metrics")
        # Its death can be proven all the same.
        assert await tables.value("SELECT place FROM asynctaskd.workers") == _place(process.pid)


def page(url: str) -> bytes:
    with urlopen(url) as answer:
        return bytes(answer.read())


def _place(pid: int) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{Path(f'/proc/{pid}/ns/net').stat().st_ino}"


async def test_the_restrictions_are_really_on(restricted, client):
    async with restricted:
        told = (await client.wait(await client.enqueue("forbidden"), timeout="30s")).result
    status = told.pop("status")
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
    if os.geteuid() == 0:
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert told.pop("memory of the machine") == errno.ENOENT
    told.pop("memory of the machine", None)
    assert told == {
        "executable memory": errno.EPERM,
        "plain memory": 0,
        "packets": errno.EAFNOSUPPORT,
        "netlink": errno.EAFNOSUPPORT,
        "a user namespace": errno.EPERM,
        "chown": errno.EPERM,
        "a nicer self": errno.EPERM,
        "a set-user-ID file": errno.EPERM,
    }

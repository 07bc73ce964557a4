from __future__ import annotations

import asyncio
import re
import threading
from hashlib import sha256
from http.server import ThreadingHTTPServer

import pytest

from asynctaskd import Client, TaskStatus
from examples.asyncjobs_style.service import Thumbnails


@pytest.fixture
def service(monkeypatch):
    """The example's service at a free port."""
    monkeypatch.setattr(Thumbnails, "log_message", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Thumbnails) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


async def test_the_commands_of_its_page_run(shell, commands, service, pool) -> None:
    commands = re.sub(r"^(python -m .*&|kill .*)\n", "", commands, flags=re.MULTILINE)

    await asyncio.to_thread(shell, f"export THUMBNAILS={service}\n{commands}")

    results = {task.name: task.result for task in await Client(pool).list_tasks()}
    assert results == {
        "email:welcome": "welcome to ada@example.org",
        "email:monthly": "2 letters",
        "thumbnail": {"small": "cat.small.jpg"},
        "checksum": {"sha256": sha256(b"to be or not to be").hexdigest()},
    }
    assert (await Client(pool).runtime_config()).limits == {"EMAIL": 2}


async def test_who_knows_better_ends_a_task_at_once(shell, service, pool) -> None:
    client = Client(pool)
    picture = await client.enqueue("thumbnail", {"path": "cat.txt"})
    email = await client.enqueue("email:welcome", {"to": "ada"}, labels=["EMAIL"])

    run = "asynctaskd run --app examples.asyncjobs_style.app:app --labels EMAIL --once"
    await asyncio.to_thread(shell, f"export THUMBNAILS={service}\n{run}")

    for task in await client.get_tasks([picture, email]):
        assert (task.status, task.attempts, task.reason) == (TaskStatus.FAILED, 1, "terminated")

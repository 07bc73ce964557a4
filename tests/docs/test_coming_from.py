"""Our side of the pages for those who come from other systems runs as it stands there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType

import pytest

from asynctaskd import App, Client, TaskStatus
from asynctaskd.definitions.codegen.module import write_module
from asynctaskd.definitions.spec.tasks import load_spec
from asynctaskd.testing import InMemoryClient
from tests.test_docs import DOCS, module_in


def page_on(system: str):
    return DOCS / "how-to" / f"coming-from-{system}.md"


@pytest.fixture
def shop(request: pytest.FixtureRequest, tmp_path) -> Iterator[ModuleType]:
    """The file `shop.py` of the page on a system."""
    with module_in(page_on(request.param), "shop", "# shop.py", tmp_path) as module:
        yield module


@pytest.mark.parametrize("shop", ["celery"], indirect=True)
async def test_an_order_is_charged_and_then_there_is_a_receipt(
    shop, connection, asynctaskd_worker, asynctaskd_clock
) -> None:
    await connection.execute("CREATE TABLE orders (id bigint)")
    task_id = await shop.buy(connection, 7)
    client = Client(connection)
    async with asynctaskd_worker(shop.app, labels=["payments"]) as worker:
        await worker.drain()
        assert (await client.get_task(task_id)).status is TaskStatus.WAITING
        await asynctaskd_clock.advance("1m")
        await worker.drain()
    receipt, charged = [task for task in await client.list_tasks() if task.name != "report"]
    assert (receipt.id, receipt.result) == (task_id, "receipt of order 7")
    assert charged.result == "order 7: 12, attempt 1"
    assert [slots["name"] for slots in await client.list_schedules()] == ["report"]


@pytest.mark.parametrize("shop", ["procrastinate"], indirect=True)
async def test_a_user_who_signs_up_gets_an_email(
    shop, connection, asynctaskd_worker, asynctaskd_clock
) -> None:
    await connection.execute("CREATE TABLE users (email text)")
    task_id = await shop.sign_up(connection, "ada@example.org")
    async with asynctaskd_worker(shop.app, labels=["mail"]) as worker:
        await worker.drain()
        tomorrow = (await asynctaskd_clock.now() + timedelta(days=1)).replace(hour=4, minute=0, second=1)
        await asynctaskd_clock.advance_to(tomorrow)
        await worker.drain()
    client = Client(connection)
    sent = await client.get_task(task_id)
    assert (sent.result, sent.serial_key) == ("welcome to ada@example.org, attempt 1", "ada@example.org")
    cleaned, *_ = await client.list_tasks(name="cleanup")
    assert cleaned.result == "as of 04:00"


@pytest.mark.parametrize("shop", ["river"], indirect=True)
async def test_strings_are_sorted_once(shop, connection, asynctaskd_worker, asynctaskd_clock) -> None:
    task_id, again = [await shop.insert(connection, ["whale", "bear"]) for _ in range(2)]
    assert again == task_id
    none = await shop.insert(connection, [])
    async with asynctaskd_worker(shop.app) as worker:
        await asynctaskd_clock.advance("1m")
        await worker.drain()
    done, failed = await Client(connection).get_tasks([task_id, none])
    assert done.result == ["bear", "whale"]
    assert (failed.status, failed.reason) == (TaskStatus.FAILED, "terminated")


@pytest.mark.parametrize("shop", ["river"], indirect=True)
async def test_rivers_default_policy_waits_by_the_fourth_power(shop) -> None:
    app = App(retry=shop.river_default)

    @app.task("fail")
    async def fail() -> None:
        raise ConnectionError

    client = InMemoryClient(app)
    task_id = await client.enqueue("fail")
    for seconds in (1, 16, 81):
        await client.drain()
        client.advance(timedelta(seconds=seconds))
    await client.drain()
    assert (await client.get_task(task_id)).attempts == 4


@pytest.fixture
def anclax(tmp_path, monkeypatch) -> Iterator[ModuleType]:
    """The page's file, its module, and `shop.py`."""
    [definitions] = re.findall(r"```yaml\n(.*?)```", page_on("anclax").read_text("utf8"), re.DOTALL)
    (tmp_path / "tasks.yaml").write_text(definitions)
    module = ModuleType("tasks_gen")
    monkeypatch.setitem(sys.modules, "tasks_gen", module)
    exec(write_module(load_spec(tmp_path / "tasks.yaml")), vars(module))
    with module_in(page_on("anclax"), "shop", "# shop.py", tmp_path) as shop:
        yield shop


async def test_an_order_that_fails_is_marked_in_the_same_transaction(
    anclax, connection, asynctaskd_worker
) -> None:
    class Orders:
        async def process(self, order_id: int) -> None:
            await connection.execute("UPDATE orders SET status = 'processed' WHERE id = $1", order_id)

    await connection.execute("CREATE TABLE orders (id int, status text); INSERT INTO orders VALUES (7), (-1)")
    app = anclax.make_app(Orders())
    runner = anclax.TaskRunner(Client(connection, app))
    async with connection.transaction():
        ids = [await anclax.place(connection, runner, order_id) for order_id in (7, -1)]
    async with asynctaskd_worker(app, concurrency=1) as worker:
        await worker.drain()
    assert dict(await connection.fetch("SELECT * FROM orders")) == {7: "processed", -1: "failed"}
    assert [task.priority for task in await Client(connection).get_tasks(ids)] == [10, 10]


PAGES = sorted((DOCS / "how-to").glob("coming-from-*.md"))
# What is theirs, where it has a name that stands alone.
WORDS = re.compile(r"`(?:await )?client\.(\w+)\(")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_tables_say_of_the_client_exists(page) -> None:
    ours = [line.split("|")[2] for line in page.read_text("utf8").splitlines() if line.startswith("| ")]
    named = {name for cell in ours for name in WORDS.findall(cell)}
    assert named
    assert named <= set(dir(Client))

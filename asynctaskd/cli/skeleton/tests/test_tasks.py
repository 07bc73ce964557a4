from collections.abc import Callable

from asynctaskd import Client
from asynctaskd.testing import InMemoryClient, Worker

from PACKAGE.app import make_app
from PACKAGE.tasks_gen import SendEmailParams

EMAIL = SendEmailParams(to="ada@example.org", subject="Welcome")


class Outbox:
    """A mailer that keeps what it should send; the line is busy as often as it is told."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy
        self.sent: list[str] = []

    async def send(self, to: str, subject: str, text: str) -> None:
        if self.busy:
            self.busy -= 1
            raise ConnectionError("the line is busy")
        self.sent.append(to)


async def test_what_did_not_work_is_tried_again() -> None:
    outbox = Outbox(busy=1)
    client = InMemoryClient(make_app(outbox))  # no database: tasks run in `drain`
    task_id = await client.enqueue("SendEmail", EMAIL)

    await client.drain()
    assert outbox.sent == []

    client.advance("1m")
    await client.drain()
    assert outbox.sent == ["ada@example.org"]
    assert (await client.get_task(task_id)).attempts == 2


async def test_a_worker_sends_it(
    asynctaskd_client: Client, asynctaskd_worker: Callable[..., Worker]
) -> None:
    outbox = Outbox()
    # A real worker, on a PostgreSQL that is made for this run.
    async with asynctaskd_worker(make_app(outbox)) as worker:
        task_id = await asynctaskd_client.enqueue("SendEmail", EMAIL)
        await worker.drain()
    assert outbox.sent == ["ada@example.org"]
    assert (await asynctaskd_client.get_task(task_id)).result == {"sent_to": "ada@example.org"}

"""Why isn't it running? One right reason for each case, and quickly, however many tasks wait."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from asynctaskd import Client, TaskNotFoundError

if TYPE_CHECKING:
    from asynctaskd.control.explanations import Why
    from tests.conftest import Connection, Pool


class Scene:
    """Tasks and workers as rows: nobody runs anything here."""

    def __init__(self, client: Client, pool: Pool) -> None:
        self.client = client
        self.pool = pool

    async def worker(
        self, *, labels: str = "", names: str = "act", concurrency: int = 1, **columns: Any
    ) -> UUID:
        worker = uuid4()
        await self.pool.execute(
            """INSERT INTO asynctaskd.workers
                      (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
               VALUES ($1, $1, 'host', 7, '0', $2, $3, $4, clock_timestamp() + interval '1 h')""",
            worker, labels.split(), names.split(), concurrency,
        )  # fmt: skip
        for column, value in columns.items():
            await self.pool.execute(
                f"UPDATE asynctaskd.workers SET {column} = $2 WHERE id = $1", worker, value
            )
        return worker

    async def act(self, **options: Any) -> int:
        return await self.client.enqueue("act", **options)

    async def run(self, task_id: int, worker: UUID) -> None:
        await self.change(
            task_id,
            f"status = 'running', worker_id = '{worker}', claim_token = 1, claimed_at = clock_timestamp()",
        )

    async def change(self, task_id: int, what: str) -> None:
        await self.pool.execute(f"UPDATE asynctaskd.tasks SET {what} WHERE id = $1", task_id)

    async def grow_old(self, task_id: int) -> None:
        await self.change(task_id, "created_at = created_at - interval '1 min'")

    async def configure(self, **columns: Any) -> None:
        names = ", ".join(columns)
        values = ", ".join(f"${n}" for n in range(1, len(columns) + 1))
        await self.pool.execute(
            f"INSERT INTO asynctaskd.runtime_configs (version, {names}) VALUES (7, {values})",
            *(json.dumps(value) if isinstance(value, dict) else value for value in columns.values()),
        )

    async def why(self, task_id: int) -> Why:
        return await self.client.why(task_id)


@pytest.fixture
def scene(pool: Pool) -> Scene:
    return Scene(Client(pool), pool)


def says(why: Why, reason: str, explanation: str, remedy: str | None = None) -> None:
    assert why.reason == reason
    assert re.search(explanation, why.explanation), why.explanation
    if remedy is None:
        assert why.remedy is None
    else:
        assert why.remedy is not None
        assert re.search(remedy, why.remedy), why.remedy


# It waits for something of its own.


async def test_it_waits_for_its_time(scene: Scene) -> None:
    why = await scene.why(await scene.act(delay="1h"))
    says(why, "scheduled", r"it waits until \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "run-now")


async def test_it_waits_for_its_next_attempt(scene: Scene) -> None:
    task = await scene.act(delay="1h")
    await scene.change(task, "failures = 2, reason = 'timeout', last_error = 'timed out after 1s'")
    says(await scene.why(task), "retry", r"its execution 2 failed \(timeout: timed out after 1s\)", "run-now")


async def test_a_worker_that_took_it_did_not_know_its_name(scene: Scene) -> None:
    task = await scene.act(delay="1h")
    await scene.change(task, "reason = 'unknown_name'")
    says(
        await scene.why(task),
        "unknown_name",
        "knows the name act; it is tried again at",
        "whose App declares",
    )


async def test_where_another_live_worker_knows_its_name_none_has_to_be_started(scene: Scene) -> None:
    await scene.worker(names="other")
    await scene.worker(labels="a")
    task = await scene.act(delay="1h", labels=["a"])
    await scene.change(task, "reason = 'unknown_name'")
    says(
        await scene.why(task),
        "unknown_name",
        "doesn't know the name act, which 1 of those that may run it know",
        "run-now",
    )


async def test_its_serial_key_is_held_by_another(scene: Scene) -> None:
    head = await scene.act(delay="1h", serial_key="k")
    why = await scene.why(await scene.act(serial_key="k"))
    says(why, "serial_key", rf"its serial key 'k' is held by task {head} \(scheduled\)", f"tasks why {head}")
    assert why.detail == {"serial_key": "k", "held_by": head}


async def test_it_is_the_next_of_its_serial_key(scene: Scene) -> None:
    head, mate = await scene.act(serial_key="k"), await scene.act(serial_key="k")
    await scene.change(head, "status = 'paused'")
    says(
        await scene.why(mate), "serial_key", "it is the next of its serial key 'k', and goes within a second"
    )


async def test_it_depends_on_others(scene: Scene) -> None:
    one, two = await scene.act(), await scene.act(delay="1h")
    why = await scene.why(await scene.act(depends_on=[one, two]))
    says(why, "dependencies", rf"task {one} \(pending\), task {two} \(scheduled\)", f"tasks why {one}")


async def test_an_operator_paused_it(scene: Scene) -> None:
    task = await scene.act()
    receipt = await scene.client.pause(task)
    says(
        await scene.why(task), "paused", rf"paused by command {receipt.request_id} of \w+ at", "tasks resume"
    )


async def test_it_was_born_below_a_paused_task(scene: Scene) -> None:
    root = await scene.act()
    await scene.client.pause(root)
    says(
        await scene.why(await scene.act(parent_id=root)),
        "paused",
        f"born below task {root}",
        f"resume {root}",
    )


# The configuration keeps it.


async def test_its_name_is_paused(scene: Scene) -> None:
    await scene.worker()
    pending, parked = await scene.act(), await scene.act()
    await scene.change(parked, "status = 'paused', reason = 'name paused'")
    await scene.configure(paused_names=["act"])
    for task in (pending, parked):
        says(await scene.why(task), "name_paused", "its name act is paused by version 7", "paused_names")


async def test_its_label_is_paused(scene: Scene) -> None:
    await scene.worker(labels="a b")
    await scene.configure(paused_labels=["b"])
    says(
        await scene.why(await scene.act(labels=["a", "b"])),
        "label_paused",
        "its label b is paused by version 7",
        "paused_l",
    )


async def test_its_label_is_at_its_limit(scene: Scene) -> None:
    worker = await scene.worker(labels="a", concurrency=9)
    await scene.configure(limits={"a": 2})
    first, second, third = [await scene.act(labels=["a"]) for _ in range(3)]
    await scene.run(first, worker)
    assert (await scene.why(third)).reason == "starting"
    await scene.run(second, worker)
    why = await scene.why(third)
    says(why, "limit", "its label a is at its limit: 2 of 2 run", f"the oldest is task {first}")
    assert why.detail["held_by"] == [first, second]


async def test_a_limit_of_nought_has_nobody_to_wait_for(scene: Scene) -> None:
    worker = await scene.worker(labels="a", concurrency=9)
    await scene.configure(limits={"a": 0})
    first, second = [await scene.act(labels=["a"]) for _ in range(2)]
    why = await scene.why(first)
    says(why, "limit", "its label a is at its limit: 0 of 0 run", "^raise the limit: at 0 none begins$")
    await scene.run(second, worker)
    says(await scene.why(first), "limit", "1 of 0 run", "^raise the limit: at 0 none begins$")


# Nobody may run it.


async def test_no_worker_is_live(scene: Scene) -> None:
    worker = await scene.worker()
    await scene.pool.execute("UPDATE asynctaskd.workers SET lost_at = now() WHERE id = $1", worker)
    says(await scene.why(await scene.act()), "no_worker", "no worker is live", "start one")


async def test_no_live_worker_has_its_labels(scene: Scene) -> None:
    await scene.worker(labels="a")
    await scene.worker(labels="b")
    why = await scene.why(await scene.act(labels=["a", "b", "c"]))
    says(why, "labels", "no live worker has all of its labels a, b, c; none has c", "--labels")
    says(await scene.why(await scene.act(labels=["a", "b"])), "labels", "labels a, b$", "--labels")


async def test_no_live_worker_with_its_labels_knows_its_name(scene: Scene) -> None:
    await scene.worker(labels="a", names="other")
    await scene.worker(names="act")
    says(
        await scene.why(await scene.act(labels=["a"])),
        "unknown_name",
        "knows the name act",
        "declares that name",
    )


# There is no room for it.


async def test_the_strict_lane_is_full_everywhere(scene: Scene) -> None:
    worker = await scene.worker(concurrency=4, max_strict_percentage=50)
    other = await scene.worker(concurrency=4, max_strict_percentage=0)
    for _ in range(2):
        await scene.run(await scene.act(priority=1), worker)
    why = await scene.why(await scene.act(priority=1))
    says(why, "strict_cap", "2 of 2 on", "max_strict_percentage")
    assert {one["worker_id"]: one["strict_cap"] for one in why.detail["workers"]} == {
        str(worker): 2,
        str(other): 0,
    }
    assert (await scene.why(await scene.act())).reason == "starting"


async def test_what_the_configuration_says_of_the_strict_cap_wins(scene: Scene) -> None:
    await scene.worker(concurrency=4, max_strict_percentage=50)
    await scene.configure(max_strict_percentage=0)
    says(await scene.why(await scene.act(priority=1)), "strict_cap", "0 of 0 on", "max_strict_percentage")


async def test_every_slot_is_taken_and_it_stands_in_line(scene: Scene) -> None:
    worker = await scene.worker(labels="a b")
    await scene.configure(weights={"a": 3, "b": 5}, default_weight=2)
    await scene.run(await scene.act(), worker)
    await scene.act(labels=["b", "a"])
    light = await scene.act(labels=["a", "b"])
    await scene.act(labels=["a", "b"], weight=9)
    why = await scene.why(light)
    says(
        why,
        "in_line",
        "its group a has weight 3 of 10, and 2 tasks with the same labels are ahead",
        "add workers",
    )
    assert (why.detail["group"], why.detail["ahead"]) == ("a", 2)


# It has been tried.


async def test_it_runs(scene: Scene) -> None:
    worker = await scene.worker()
    task = await scene.act()
    await scene.run(task, worker)
    says(await scene.why(task), "running", rf"it runs on worker {worker} \(host:7\) since")


async def test_it_was_told_to_stop_and_goes_on(scene: Scene) -> None:
    worker = await scene.worker()
    task = await scene.act()
    await scene.run(task, worker)
    await scene.client.cancel(task, timeout="0s")
    says(await scene.why(task), "stopping", "it is to be cancelled", "its handler has to end")


async def test_another_task_blocks_its_worker(scene: Scene) -> None:
    stall = {"task_id": 99, "task": "busy", "seconds": 12.5, "stack": ""}
    worker = await scene.worker(stall=json.dumps(stall))
    task = await scene.act()
    await scene.run(task, worker)
    says(await scene.why(task), "blocked", r"blocked by busy \(task 99\) for 12.5 s", "use await")


async def test_its_worker_is_gone(scene: Scene) -> None:
    worker = await scene.worker()
    task = await scene.act()
    await scene.run(task, worker)
    await scene.pool.execute("UPDATE asynctaskd.workers SET expires_at = now() - interval '1 s'")
    says(await scene.why(task), "lost", f"its worker {worker} .* is gone", "start a worker")


async def test_it_is_a_suspect(scene: Scene) -> None:
    await scene.worker()
    task = await scene.act()
    await scene.change(task, "losses = 2")
    says(await scene.why(task), "suspect", "lost 2 times in a row")


async def test_only_its_hook_is_left(scene: Scene) -> None:
    await scene.worker()
    task = await scene.act()
    await scene.change(task, "losses = 3, reason = 'quarantined'")
    says(await scene.why(task), "hook", "quarantined")


async def test_it_has_ended(scene: Scene) -> None:
    task = await scene.act()
    await scene.client.fail(task, "wrong address")
    says(
        await scene.why(task),
        "failed",
        "it has ended: failed at .*: failed_by_operator, wrong address",
        "tasks retry",
    )


# Nothing keeps it.


async def test_it_is_about_to_start(scene: Scene) -> None:
    await scene.worker()
    says(await scene.why(await scene.act()), "starting", "it starts within a second")


async def test_that_it_should_have_started_is_called_a_defect(scene: Scene) -> None:
    await scene.worker()
    task = await scene.act()
    await scene.grow_old(task)
    says(await scene.why(task), "defect", r"nothing keeps it.*has waited for 60 s", "please report")


async def test_there_is_no_such_task(scene: Scene) -> None:
    with pytest.raises(TaskNotFoundError, match="there is no task 99"):
        await scene.why(99)


# Beside a long backlog.


@pytest.mark.parametrize("is_analysed", [False, True])
async def test_the_answer_touches_little_of_a_long_backlog(
    scene: Scene, connection: Connection, is_analysed: bool
) -> None:
    worker = await scene.worker(labels="a", concurrency=1)
    await scene.run(await scene.act(labels=["a"]), worker)
    await connection.execute("""
        INSERT INTO asynctaskd.tasks (name, status, label_set, payload)
        SELECT 'act', 'pending', chr(97 + n % 20), '{}' FROM generate_series(0, 99999) AS n""")
    if is_analysed:
        await connection.execute("ANALYZE asynctaskd.tasks")
    last = await scene.act(labels=["a"])
    read = "SELECT sum(idx_tup_fetch + coalesce(seq_tup_read, 0))::bigint FROM pg_stat_xact_user_tables"
    async with connection.transaction():
        before = await connection.fetchval(read)
        explanation = await connection.fetchval("SELECT (asynctaskd.why($1)).explanation", last)
        assert await connection.fetchval(read) - before < 1100
    assert "more than 1000 tasks with the same labels are ahead" in explanation


# Timeline


async def test_a_timeline_has_every_moment_and_the_time_between(scene: Scene, connection: Connection) -> None:
    task = await scene.act(delay="1h", labels=["a"])
    await scene.client.pause(task)
    await scene.client.resume(task)
    await scene.client.fail(task, "wrong")
    moments = await scene.client.timeline(task)
    assert [moment.what for moment in moments] == ["enqueued", "paused", "resumed", "failed"]
    assert moments[0].after is None
    assert all(one.after is not None and one.at - one.after == last.at for last, one in pairwise(moments))
    assert moments[-1].detail["error"] == "wrong"
    with pytest.raises(TaskNotFoundError):
        await scene.client.timeline(99)


async def test_a_timeline_has_every_claim(scene: Scene, connection: Connection) -> None:
    worker = await scene.worker()
    task = await scene.act()
    await scene.run(task, worker)
    await connection.execute(
        """INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
           SELECT id, claim_token, claimed_at, 'retried', '{"error": "oh"}' FROM asynctaskd.tasks"""
    )
    await scene.change(task, "claim_token = 2, claimed_at = clock_timestamp()")
    moments = await scene.client.timeline(task)
    assert [moment.what for moment in moments] == ["enqueued", "claimed", "retried", "claimed"]
    assert moments[2].detail == {"error": "oh"}

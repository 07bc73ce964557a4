"""Tasks whose payloads and outcomes go through a codec, from the enqueue to the record."""

from __future__ import annotations

import asyncio
import json

import pytest

from asynctaskd import (
    App,
    Client,
    Cron,
    InvalidDefinitionError,
    InvalidInputError,
    InvalidPayloadError,
    TaskContext,
    TaskFailure,
    TaskRequest,
)
from asynctaskd.codecs import AesGcmCodec, JsonCodec, MsgpackCodec, SignedCodec
from tests.codecs.test_codecs import signing_key

KEY = b"k" * 32


@pytest.fixture
def app() -> App:
    return App(codec=AesGcmCodec({"k": KEY}))


@pytest.fixture
def knowing(app, pool) -> Client:
    """A client that has the App, and so the keys."""
    return Client(pool, app)


async def stored(tables, task_id: int, column: str = "payload"):
    text = await tables.value(f"SELECT {column}::text FROM asynctaskd.all_tasks WHERE id = $1", task_id)
    return text and json.loads(text)


async def test_payload_and_result_are_encoded_in_the_table_and_plain_for_handler_and_client(
    app, running, client, knowing, tables
):
    seen = []

    @app.task("charge")
    async def charge(card: str, amount: int) -> dict:
        seen.append((card, amount))
        return {"receipt": 7}

    async with running(app):
        task_id = await knowing.enqueue("charge", {"card": "4111", "amount": 3}, priority=2)
        task = await knowing.wait(task_id, timeout="20s")
    assert seen == [("4111", 3)]
    assert (task.payload, task.result) == ({"card": "4111", "amount": 3}, {"receipt": 7})
    for column in ("payload", "result"):
        assert (await stored(tables, task_id, column))[:8] == "aes-gcm:"
    blind = await client.get_task(task_id)
    assert blind.payload.startswith("aes-gcm:")


async def test_every_way_to_enqueue_encodes(app, running, knowing, tables):
    ran = []

    @app.task("note")
    async def note(n: int, ctx: TaskContext) -> None:
        ran.append(n)
        if n == 5:
            await ctx.enqueue(note.request(6))

    async with running(app):
        ids = [await knowing.enqueue("note", {"n": 1}), await knowing.enqueue(note.request(2))]
        ids += await knowing.enqueue_many(
            [TaskRequest("note", {"n": 3}), TaskRequest("note", {"n": 4}, weight=2)]
        )
        ids += [await knowing.enqueue("note", {"n": 5}, unique_tag="five")]
        for task_id in ids:
            await knowing.wait(task_id, timeout="20s")
        await tables.until("SELECT count(*) = 6 FROM asynctaskd.finished_tasks")
    assert sorted(ran) == [1, 2, 3, 4, 5, 6]
    assert await tables.value(
        "SELECT bool_and(payload #>> '{}' LIKE 'aes-gcm:%') FROM asynctaskd.finished_tasks"
    )


async def test_errors_progress_and_their_events_are_encoded_and_logs_show_no_text(
    app, running, client, knowing, tables, recorder
):
    failures: list[TaskFailure] = []

    @app.task("charge")
    async def charge(card: str, ctx: TaskContext) -> None:
        await ctx.progress(50, f"charging {card}")
        raise ValueError(f"{card} was declined")

    @charge.on_failed
    async def failed(params, failure, tx) -> None:
        failures.append(failure)

    async with running(app):
        task_id = await knowing.enqueue("charge", {"card": "4111"})
        await tables.until_status(task_id, "failed")
    task = await knowing.get_task(task_id)
    assert task.last_error == "ValueError: 4111 was declined"
    assert task.progress == {"percent": 50, "message": "charging 4111"}
    row = await tables.value("SELECT to_jsonb(t)::text FROM asynctaskd.all_tasks AS t")
    event = await tables.value("SELECT detail::text FROM asynctaskd.task_events")
    assert "4111" not in row + event + repr(recorder.events)
    assert (failures[0].payload, failures[0].error) == ({"card": "4111"}, "ValueError: 4111 was declined")


async def test_errors_of_hooks_and_of_handlers_after_their_commit_are_told_encoded_too(
    app, running, knowing, tables, recorder
):
    @app.task("charge")
    async def charge(card: str, ctx: TaskContext) -> None:
        raise ValueError

    @charge.on_failed
    async def failed(params, failure, tx) -> None:
        raise LookupError(f"nobody has {failure.payload['card']}")

    @app.on_error
    async def report(failure, error) -> None:
        raise ConnectionError(f"can't report {failure.payload['card']}")

    @app.task("settle")
    async def settle(card: str, ctx: TaskContext) -> None:
        async with ctx.transaction():
            pass
        raise ValueError(f"too late for {card}")

    async with running(app):
        task_id = await knowing.enqueue("charge", {"card": "4111"})
        await knowing.wait(await knowing.enqueue("settle", {"card": "4111"}), timeout="20s")
        for event in ("hook.failed", "error_hook.failed", "task.after_commit"):
            await recorder.wait_for(event)
        await tables.until_status(task_id, "failed")
    assert (await tables.detail(task_id, "hook_failed"))["error"].startswith("aes-gcm:")
    assert "4111" not in repr(recorder.events)


async def test_hooks_are_told_a_payload_as_it_is_stored_where_it_cant_be_decoded(app, running, tables, pool):
    told = []

    @app.task("charge")
    async def charge(card: str) -> None: ...

    @charge.on_failed
    async def failed(params, failure, tx) -> None:
        told.append((params, failure.payload))

    other = App(codec=AesGcmCodec({"lost": b"l" * 32}))
    other.register(charge.handler, name="charge")
    task_id = await Client(pool, other).enqueue("charge", {"card": "4111"})
    text = await stored(tables, task_id)
    async with running(app):
        await tables.until_status(task_id, "failed")
    assert told == [(None, text)]


async def test_sql_has_to_say_that_a_payload_is_encoded(app, running, client, knowing, tables, pool):
    ran = []

    @app.task("note")
    async def note(n: int) -> None:
        ran.append(n)

    @app.route("email:")
    async def email(payload: dict) -> None: ...

    async with running(app):
        for name in ("note", "email:new"):
            for enqueue in (
                client.enqueue(name, {"n": 1}),
                client.enqueue_many([TaskRequest(name, {"n": 1})]),
            ):
                with pytest.raises(InvalidInputError, match="are encoded by the codec aes-gcm"):
                    await enqueue
        payload = note.dump({"n": 7})
        ids = [
            await pool.fetchval(
                "SELECT asynctaskd.enqueue('note', $1::text::jsonb, encoded => true)", payload
            ),
            *await pool.fetchval(
                "SELECT asynctaskd.enqueue_many('{note}', ARRAY[$1::text::jsonb],"
                " options => ARRAY['{\"encoded\": true}'::jsonb])",
                payload,
            ),
        ]
        for task_id in ids:
            await knowing.wait(task_id, timeout="20s")
    assert ran == [7, 7]


async def test_what_cant_be_decoded_fails_with_the_reason_and_without_its_text(app, running, client, tables):
    @app.task("note")
    async def note(n: int) -> None: ...

    ids = [await client.enqueue("note", {"n": 4111}) for _ in range(2)]
    await tables.execute("UPDATE asynctaskd.tasks SET payload = '\"aes-gcm:AAAA\"' WHERE id = $1", ids[0])
    async with running(app):
        for task_id in ids:
            row = await tables.until_status(task_id, "failed")
            assert row["reason"] == "invalid_payload"


async def test_unsigned_and_wrongly_signed_tasks_are_refused(running, client, pool, tables):
    private, public = signing_key()
    ran = []

    def declared(**options) -> App:
        app = App(codec=SignedCodec({"a": public}, **options))

        @app.task("note")
        async def note(n: int) -> int:
            ran.append(n)
            return n

        return app

    signer, forger = Client(pool, declared(sign_with=("a", private))), signing_key(b"f" * 32)
    forged = App(codec=SignedCodec({"a": forger[1]}, sign_with=("a", forger[0])))
    forged.register(unsigned, "note")
    ids = {
        "unsigned": await client.enqueue("note", {"n": 1}),
        "forged": await Client(pool, forged).enqueue("note", {"n": 2}),
        "signed": await signer.enqueue("note", {"n": 3}),
    }
    async with running(declared()):
        task = await signer.wait(ids.pop("signed"), timeout="20s")
        for task_id in ids.values():
            assert (await tables.until_status(task_id, "failed"))["reason"] == "invalid_payload"
    assert (ran, task.result) == ([3], 3)
    with pytest.raises(InvalidPayloadError, match="can't be signed here"):
        await Client(pool, declared()).enqueue("note", {"n": 4})


def unsigned(n: int) -> None: ...


async def test_a_schedules_slots_are_encoded(app, running, knowing, tables):
    ran = []

    @app.task("note", cron=Cron("* * * * * *", params={"n": 1}, overlap="allow"))
    async def note(n: int) -> None:
        ran.append(n)

    async with running(app):
        await tables.until("SELECT count(*) > 0 FROM asynctaskd.finished_tasks WHERE status = 'completed'")
    assert set(ran) == {1}
    assert (await tables.value("SELECT payload #>> '{}' FROM asynctaskd.all_tasks LIMIT 1"))[:8] == "aes-gcm:"


async def test_a_failure_tasks_payload_is_encoded(app, running, knowing, tables):
    told = []

    @app.task("ship", on_failed="tell")
    async def ship() -> None:
        raise ValueError("no")

    @app.task("tell")
    async def tell(task_id: int) -> None:
        told.append(task_id)

    async with running(app):
        task_id = await knowing.enqueue("ship")
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'tell'")
    assert told == [task_id]


async def test_a_definition_may_have_another_codec_than_its_app_or_none(app, running, knowing, tables):
    @app.task("packed", codec=MsgpackCodec())
    async def packed(n: int) -> int:
        return n

    @app.task("plain", codec=JsonCodec())
    async def plain(n: int) -> int:
        return n

    async with running(app):
        one = await knowing.wait(await knowing.enqueue("packed", {"n": 1}), timeout="20s")
        two = await knowing.wait(await knowing.enqueue("plain", {"n": 2}), timeout="20s")
    assert (one.result, two.result) == (1, 2)
    assert (await stored(tables, one.id))[:8] == "msgpack:"
    assert await stored(tables, two.id) == {"n": 2}


async def test_results_of_dependencies_are_decoded(app, running, knowing):
    got = {}

    @app.task("first")
    async def first() -> int:
        return 41

    @app.task("second")
    async def second(ctx: TaskContext) -> None:
        got.update(await ctx.dependency_results())

    async with running(app):
        parent = await knowing.enqueue("first")
        await knowing.wait(await knowing.enqueue("second", depends_on=[parent]), timeout="20s")
    assert got == {parent: 41}


async def test_a_transaction_of_the_handlers_own_completes_with_an_encoded_result(
    app, running, knowing, tables
):
    @app.task("settle")
    async def settle(ctx: TaskContext) -> None:
        async with ctx.transaction() as connection:
            ctx.result = await connection.fetchval("SELECT 5")

    async with running(app):
        task = await knowing.wait(await knowing.enqueue("settle"), timeout="20s")
    assert task.result == 5
    assert (await stored(tables, task.id, "result"))[:8] == "aes-gcm:"


def test_what_is_no_codec_is_refused():
    with pytest.raises(InvalidInputError, match="codec must have name, takes_plain, encode and decode"):
        App(codec="aes")
    with pytest.raises(InvalidInputError, match="codec must be an instance, got the class MsgpackCodec"):
        App(codec=MsgpackCodec)

    class Shouting(MsgpackCodec):
        name = "MSG PACK"

    with pytest.raises(InvalidDefinitionError, match="its name must match"):
        App().register(unsigned, codec=Shouting())


class Broken:
    name, takes_plain = "broken", False

    def encode(self, value, about: str) -> bytes:
        raise RuntimeError("out of ink")

    def decode(self, data: bytes, about: str):
        raise RuntimeError("can't read")


async def test_a_codec_of_ones_own_that_raises_loses_nothing(running, client, pool, tables):
    app = App(codec=Broken())

    @app.task("note")
    async def note(n: int) -> None: ...

    with pytest.raises(InvalidPayloadError, match="task 'note': RuntimeError: out of ink"):
        await Client(pool, app).enqueue("note", {"n": 1})
    task_id = await client.enqueue("note", {"n": 1})
    await tables.execute("UPDATE asynctaskd.tasks SET payload = '\"broken:AAAA\"'")
    async with running(app):
        row = await tables.until_status(task_id, "failed")
    assert row["reason"] == "invalid_payload"


async def test_nobody_waits_for_ever_where_an_error_cant_be_encoded(running, client, tables):
    app = App(codec=Broken())
    begun = asyncio.Event()

    @app.task("note")
    async def note() -> None:
        begun.set()
        raise ValueError("no")

    task_id = await client.enqueue("note")
    await tables.execute("UPDATE asynctaskd.tasks SET payload = '\"broken:AAAA\"'")
    async with running(app):
        row = await tables.until_status(task_id, "failed")
    assert "can't be encoded" in row["last_error"]


@pytest.mark.parametrize("kind", ["aes-gcm", "signed"])
async def test_what_was_encoded_for_one_name_of_a_route_is_no_payload_of_another(
    kind, running, pool, tables, recorder
):
    private, public = signing_key()
    codecs = {
        "aes-gcm": AesGcmCodec({"k": KEY}),
        "signed": SignedCodec({"a": public}, sign_with=("a", private)),
    }
    app = App(codec=codecs[kind])

    @app.route("pay:")
    async def pay(payload: dict, ctx: TaskContext) -> dict:
        await ctx.progress(50)
        return payload

    client = Client(pool, app)
    one, two = await client.enqueue_many([TaskRequest("pay:a", {"n": 1}), TaskRequest("pay:b", {"n": 2})])
    moved = await tables.value(
        "SELECT asynctaskd.enqueue('pay:b', payload, encoded => true) FROM asynctaskd.tasks WHERE id = $1",
        one,
    )
    async with running(app):
        results = [(await client.wait(task_id, timeout="20s")).result for task_id in (one, two)]
        await recorder.wait_for("task.failed", task_id=moved)
    assert results == [{"n": 1}, {"n": 2}]
    assert (await client.get_task(one)).progress == {"percent": 50, "message": ""}
    assert (await tables.task(moved))["reason"] == "invalid_payload"


async def test_a_worker_without_the_app_leaves_slots_to_those_who_can_encode(
    app, running, client, tables, recorder
):
    @app.task("note")
    async def note(n: int) -> None: ...

    async with running(app):
        pass  # the database knows of the codec
    await client.add_schedule("note", Cron("* * * * * *", params={"n": 1}, overlap="allow"))
    async with running(App()):
        await recorder.wait_for("cron.looked", times=3)
        assert await tables.value("SELECT count(*) FROM asynctaskd.schedule_slots") == 0
        async with running(app):
            await tables.until(
                "SELECT count(*) > 0 FROM asynctaskd.finished_tasks WHERE status = 'completed'"
            )


async def test_a_worker_that_cant_sign_leaves_a_schedule_as_it_is(running, client, tables, recorder):
    _, public = signing_key()
    app = App(codec=SignedCodec({"a": public}))

    @app.task("note", cron=Cron("* * * * * *", params={"n": 1}))
    async def note(n: int) -> None: ...

    async with running(app):
        await recorder.wait_for("schedule.refused")
        assert await tables.value("SELECT paused_at IS NULL FROM asynctaskd.schedules")

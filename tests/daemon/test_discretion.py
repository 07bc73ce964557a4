"""What a worker stores and tells of a failed attempt has no secret of its payload in it."""

from __future__ import annotations

import json
from io import StringIO
from typing import Annotated

import pytest
import structlog
from prometheus_client import generate_latest
from pydantic import BaseModel, Field, ValidationError

from asynctaskd import App, Client, FatalTaskError, TaskContext, TaskFailedError
from asynctaskd.codecs import AesGcmCodec, MsgpackCodec
from asynctaskd.telemetry.logs import configure_logging
from asynctaskd.telemetry.metrics import Metrics
from tests.support.traces import Spans

SECRET = "s3cr3t-'quoted'-\"twice\""


class Payment(BaseModel):
    card: Annotated[str, Field(json_schema_extra={"secret": True})]


class Number(BaseModel):
    number: int


@pytest.mark.parametrize("how", ["said", "quoted", "pydantic", "driver", "chained", "result"])
async def test_neither_rows_nor_lines_nor_spans_nor_metrics_have_a_secret(
    app, running, client, tables, monkeypatch, how
):
    @app.task("pay")
    async def pay(params: Payment, ctx: TaskContext) -> dict[str, str]:
        if how == "said":
            raise ValueError(f"the card {params.card} was refused")
        if how == "quoted":
            raise FatalTaskError(f"refused: {params!r} {json.dumps(params.model_dump())}")
        if how == "pydantic":
            Number.model_validate({"number": params.card})
        if how == "driver":
            async with ctx.transaction() as connection:
                await connection.execute("SELECT $1::integer", params.card)
        if how == "chained":
            try:
                Number.model_validate({"number": params.card})
            except ValidationError as error:
                raise LookupError("no such card") from error
        return {"card": params.card}

    @pay.on_failed
    async def pay_failed(params: Payment | None, failure, tx) -> None:
        raise LookupError(f"nothing known of {params and params.card}")

    spans, metrics, stream = Spans(monkeypatch), Metrics(app), StringIO()
    logs = configure_logging("debug", "json", stream)
    try:
        async with running(app):
            task_id = await client.enqueue("pay", {"card": SECRET})
            row = await tables.until_status(task_id, "completed" if how == "result" else "failed")
        logs.flush()
    finally:
        logs.close()
        metrics.close()
        structlog.reset_defaults()
    details = await tables.column("SELECT detail::text FROM asynctaskd.task_events")
    told = [str(row["last_error"]), stream.getvalue(), spans.everything(), *map(str, details)]
    told.append(generate_latest(metrics.registry).decode())
    for text in told:
        assert "s3cr3t" not in text
    assert "task.failed" in stream.getvalue() or how == "result"


@pytest.mark.parametrize("name", ["pay", "pay:now"])
@pytest.mark.parametrize("codec", [AesGcmCodec({"k": b"k" * 32}), MsgpackCodec()], ids=lambda one: one.name)
async def test_with_a_codec_neither_hooks_nor_clients_are_told_a_secret_of_the_payload(
    codec, name, running, pool, tables
):
    app, told = App(codec=codec), list[str]()

    async def pay(params: Payment) -> None:
        raise ValueError(f"the card {params.card} was refused")

    app.task("pay")(pay)
    app.route("pay:")(pay)

    @app.on_error
    async def report(failure, error) -> None:
        told.append(failure.error)

    @app.on_failed
    async def failed(failure, tx) -> None:
        told.append(failure.error)

    client = Client(pool, app)
    async with running(app):
        task_id = await client.enqueue(name, {"card": SECRET})
        with pytest.raises(TaskFailedError) as raised:
            await client.wait(task_id, timeout="20s")
    [task] = await client.hide_secrets([await client.get_task(task_id)])
    assert told == ["ValueError: the card *** was refused"] * 2
    assert (task.payload, task.last_error) == ({"card": "***"}, told[0])
    assert "the card *** was refused" in str(raised.value)


async def test_a_client_takes_secrets_out_of_error_texts_that_were_stored_with_them(
    app, running, pool, client, tables
):
    @app.task("pay")
    async def pay(params: Payment) -> None:
        raise ValueError("no")

    task_id = await client.enqueue("pay", {"card": SECRET})
    async with running(app):
        await tables.until_status(task_id, "failed")
    await tables.execute("UPDATE asynctaskd.finished_tasks SET last_error = $1", f"{SECRET} was refused")
    [task] = await client.hide_secrets([await client.get_task(task_id)])
    assert task.last_error == "*** was refused"


async def test_the_words_of_a_progress_have_no_secret(app, running, client, tables):
    @app.task("pay")
    async def pay(params: Payment, ctx: TaskContext) -> None:
        await ctx.progress(50, f"charging {params.card} now, {params!r}")

    async with running(app):
        task_id = await client.enqueue("pay", {"card": SECRET})
        await tables.until_status(task_id, "completed")
    task = await client.get_task(task_id)
    assert task.progress == {"percent": 50, "message": "charging *** now, Payment(card='***')"}

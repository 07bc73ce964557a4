"""What a worker stores and tells of a failed attempt has no secret of its payload in it."""

from __future__ import annotations

import json
from io import StringIO
from typing import Annotated

import pytest
import structlog
from prometheus_client import generate_latest
from pydantic import BaseModel, Field, ValidationError

from asynctaskd import FatalTaskError, TaskContext
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

"""The project's App, which the tests of other drivers use as well."""

from __future__ import annotations

from datetime import date
from typing import Any

from django.db import connection

from asynctaskd import App
from asynctaskd.codecs.messagepack import MsgpackCodec

app = App()


@app.task
def add(a: int, b: int) -> int:
    return a + b


@app.task
async def note(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@app.task(codec=MsgpackCodec())
async def seal(text: str) -> str:
    return text.upper()


def divide(a: int, b: int) -> int:
    return a // b


app.register(divide)


@app.task
def remember(text: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders (note) VALUES (%s)", [text])
    return text


@app.task
async def report(day: date) -> str:
    return day.isoformat()

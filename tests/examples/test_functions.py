from __future__ import annotations

import asyncio

import pytest

from asynctaskd import App, Client, InvalidDefinitionError, InvalidInputError
from asynctaskd.testing import InMemoryClient, assert_enqueued
from examples.functions.app import app, upload
from examples.functions.pictures import publish, resize


async def test_an_album_is_published_once_its_pictures_are_small() -> None:
    client = InMemoryClient(app)
    task_id = await upload(client, "summer", ["cat.jpg", "dog.jpg"])
    await assert_enqueued(client, "resize", {"path": "cat.jpg", "width": 400})

    await client.drain()

    assert (await client.get_task(task_id)).result == "summer: cat.jpg, dog.jpg"


async def test_the_commands_of_its_page_run(shell, commands, pool) -> None:
    told = await asyncio.to_thread(shell, commands)
    results = [task.result for task in await Client(pool).list_tasks()]
    assert results == ["summer: cat.jpg, dog.jpg", "dog-400.jpg", "cat-400.jpg"]
    assert told.split()[0] == "3"


def test_the_functions_stay_what_they_are() -> None:
    assert resize("cat.jpg") == "cat-800.jpg"
    with pytest.raises(InvalidDefinitionError, match="files"):
        App().register(lambda *files: None, "all")


async def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InvalidInputError, match="pictures"):
        await InMemoryClient(app).enqueue(publish, {"album": "summer"})

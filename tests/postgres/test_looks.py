"""What a look from the start finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd import Client
from asynctaskd.postgres.store import Store

if TYPE_CHECKING:
    from tests.conftest import Pool


async def test_it_finds_the_first_of_each_label_set_and_counts_those_of_other_workers_too(pool: Pool) -> None:
    client = Client(pool)
    light = await client.enqueue("x", labels=["a"])
    heavy = await client.enqueue("x", labels=["a"], weight=3)
    await client.enqueue("x", labels=["a"], weight=3)
    await client.enqueue("x", labels=["b"])
    await client.enqueue("x", labels=["a"], priority=1)
    urgent = await client.enqueue("x", labels=["a"], priority=2)
    newest = other = await client.enqueue("x", labels=["c"], priority=1)
    look = await Store(pool, "asynctaskd").ready_sets(["a"])
    assert heavy > light
    assert look.normal == {"a": (-3, heavy - 1)}
    assert look.strict == {"a": (-2, urgent - 1), "c": (-1, other - 1)}
    assert (look.sets, look.newest, look.suspects) == (4, newest, frozenset())
    assert 0 < look.seconds < 60


async def test_where_nothing_is_it_finds_nothing(pool: Pool) -> None:
    look = await Store(pool, "asynctaskd").ready_sets(["a"])
    assert (look.normal, look.strict, look.suspects, look.newest, look.sets) == ({}, {}, frozenset(), 0, 0)

"""When the claim loop looks from the start, by a clock that the tests move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asynctaskd.daemon.ready import Ready
from asynctaskd.postgres.records import Look

POLL = 1.0


class Store:
    """Finds nothing, and takes its time for it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seconds = 0.01
        self.looks = 0
        self.meanwhile: Callable[[], None] = lambda: None

    async def ready_sets(self, _: object) -> Look:
        self.looks += 1
        self.meanwhile()
        self.now += self.seconds
        return Look({}, {}, frozenset(), 0, 0, 0.0)


class Lease:
    labels = ("gpu",)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def ready(store: Store) -> Ready:
    """It has just looked."""
    made = Ready(store, Lease(), POLL)  # type: ignore[arg-type]
    made._now = lambda: store.now  # type: ignore[method-assign, misc]
    await made.refresh()
    assert store.looks == 1
    return made


@pytest.mark.parametrize("seconds", [0.01, 0.5])
async def test_the_next_look_is_due_after_the_poll_interval_however_long_one_takes(
    store: Store, ready: Ready, seconds: float
) -> None:
    store.seconds = seconds
    store.now += ready.seconds_to_look
    for _ in range(3):
        began = store.now
        await ready.refresh()
        store.now += ready.seconds_to_look
        assert store.now - began == pytest.approx(POLL)
    assert store.looks == 4


@pytest.mark.parametrize("notice", [Ready.hasten, lambda ready: ready.announce("gpu")])
async def test_notices_bring_it_nearer_but_looking_takes_a_tenth_of_the_time_at_most(
    store: Store, ready: Ready, notice: Callable[[Ready], None]
) -> None:
    store.meanwhile = lambda: notice(ready)
    for _ in range(10):
        notice(ready)
        began = store.now
        store.now += ready.seconds_to_look
        await ready.refresh()  # what was announced is claimed first
        await ready.refresh()
        assert 10 * store.seconds - 1e-6 <= store.now - began < POLL / 2
    assert store.looks == 11


async def test_what_another_worker_is_told_brings_no_look_nearer(store: Store, ready: Ready) -> None:
    before = ready.seconds_to_look
    ready.announce("tpu")
    assert ready.seconds_to_look == before
    await ready.refresh()
    assert not ready.sets

"""The fleet at one moment, and from moment to moment."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from asynctaskd.control.fleet_facts import compared, overview_of
from asynctaskd.definitions import rules
from asynctaskd.postgres.caller import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asynctaskd.control.fleet import Overview

# A watcher that dies is forgotten after this; one that lives renews it with each look.
_LEASE = timedelta(seconds=15)

# Shares are those of the claims of so many seconds: workers tell once a second.
_WINDOW = 5.0

# While an old snapshot is held somewhere, a look walks through all that was claimed since then: after one
# that took long it rests so many times as long.
_REST = 4


class Overviews(Caller):
    """The fleet at one moment, and from moment to moment."""

    async def overview(self) -> Overview:
        """What waits, what runs and who works, at a cost that doesn't grow with how much waits.

        Nobody is asked to count claims, so that shares had are None: `follow` knows them.
        """
        return overview_of(json.loads(await self._value("overview")))

    async def follow(self, interval: str | timedelta = "1s") -> AsyncGenerator[Overview, None]:
        """A snapshot at once, and then one each interval, until the iterator is closed.

        As long as this goes on, workers tell once a second how many tasks they have claimed of each group;
        shares had are of the last five seconds, or of one interval where that is longer. A snapshot that
        takes long is followed by a rest of four times that.
        """
        pause = rules.positive_duration("interval", interval).total_seconds()
        before: deque[Overview] = deque()
        loop = asyncio.get_running_loop()
        async with self._watching("shares") as renew:
            while True:
                await renew()
                began = loop.time()
                now = await self.overview()
                took = loop.time() - began
                while len(before) > 1 and (now.at - before[1].at).total_seconds() >= _WINDOW:
                    before.popleft()
                yield compared(before[0], now) if before else now
                before.append(now)
                await asyncio.sleep(max(pause, _REST * took))

    @asynccontextmanager
    async def _watching(self, wants: Literal["events", "shares"]) -> AsyncIterator[Any]:
        """Have workers tell something; yields what keeps them telling, to be called within 15 s each time."""
        watcher = uuid4()

        async def renew() -> None:
            await self._fetch("watch", watcher, wants, _LEASE)

        try:
            yield renew
        finally:
            await self._fetch("unwatch", watcher)

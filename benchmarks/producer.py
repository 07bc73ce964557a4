"""A producer process: so many timed tasks a second, in batches of what is due every ten milliseconds.

It prints what it enqueued as a line of JSON, when its time is up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

from benchmarks.contenders import named

TICK = 0.01


async def main(name: str, dsn: str, rate: float, seconds: float) -> None:
    """Enqueue by the clock: who falls behind sends a larger batch, so that the rate is kept if it can be."""
    async with named(name).producer(dsn) as producer:
        began = time.perf_counter()
        sent = 0
        while (elapsed := time.perf_counter() - began) < seconds:
            due = int(rate * elapsed) - sent
            if due > 0:
                await producer.enqueue_many(producer.requests(due, sent_at=time.time()))
                sent += due
            await asyncio.sleep(max(0.0, TICK - (time.perf_counter() - began - elapsed)))
    print(json.dumps({"sent": sent, "seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))

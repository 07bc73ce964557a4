"""DOES IT WORK? What tests of applications need: clients without a database, real workers, and time travel.

`plugin` makes fixtures of it for pytest.
"""

from asynctaskd.testing.assertions import assert_enqueued
from asynctaskd.testing.clock import Clock
from asynctaskd.testing.memory import InMemoryClient, NullClient
from asynctaskd.testing.worker import Worker

__all__ = ["Clock", "InMemoryClient", "NullClient", "Worker", "assert_enqueued"]

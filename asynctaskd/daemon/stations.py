"""The stations of a worker: what each is made of, and whom it calls."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from asynctaskd.client import Client
from asynctaskd.daemon.audience import WATCHED, Audience
from asynctaskd.daemon.census import Census
from asynctaskd.daemon.claim import Claimer
from asynctaskd.daemon.commands import Steering
from asynctaskd.daemon.control import CONTROL, Control
from asynctaskd.daemon.convergence import ConfigUpdates
from asynctaskd.daemon.cron import Cron
from asynctaskd.daemon.execute import Executor
from asynctaskd.daemon.execution import Interruption
from asynctaskd.daemon.finalize import Finalizer
from asynctaskd.daemon.hooks import FailureHooks
from asynctaskd.daemon.housekeeping import AWAITED, Housekeeper
from asynctaskd.daemon.identity import changed_row, worker_row
from asynctaskd.daemon.interrupts import Interrupts
from asynctaskd.daemon.isolation import Isolation
from asynctaskd.daemon.keeper import LeaseKeeper
from asynctaskd.daemon.lease import Lease
from asynctaskd.daemon.measures import Measures
from asynctaskd.daemon.permits import Permits
from asynctaskd.daemon.retention import Retention
from asynctaskd.daemon.slots import Slots
from asynctaskd.daemon.transactions import Transactions
from asynctaskd.postgres.configs import ConfigStore
from asynctaskd.postgres.driver import open_pool
from asynctaskd.postgres.listener import Listener
from asynctaskd.postgres.measures import MeasureStore
from asynctaskd.postgres.messages import hearing
from asynctaskd.postgres.orders import OrderStore
from asynctaskd.postgres.permits import PermitStore
from asynctaskd.postgres.retention import alone
from asynctaskd.postgres.schedules import ScheduleStore
from asynctaskd.postgres.store import Store
from asynctaskd.postgres.watchers import WatchStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from asynctaskd.config import DaemonConfig
    from asynctaskd.daemon.execution import Execution
    from asynctaskd.definitions.registry import Registry


class Stations:
    """A worker put together; `Daemon` starts it and stops it, and says what the arguments mean."""

    def __init__(
        self,
        app: Registry,
        dsn: str,
        config: DaemonConfig,
        *,
        app_path: str | None,
        one_suspect: bool,
        end_process: Callable[[], None],
    ) -> None:
        self._app = app
        self._dsn = dsn
        self._config = config
        self._app_path = app_path
        self._one_suspect = one_suspect
        self._end_process = end_process
        self._stopping = asyncio.Event()
        self._poll_interval = config.worker.poll_interval.total_seconds()

    async def _build(self, stack: AsyncExitStack) -> None:
        """Open the connections and put the stations together, each before those that need it."""
        config = self._config.worker
        self._store = await self._open_store()
        stack.push_async_callback(self._store.close)
        self._pool = await open_pool(self._dsn, size=self._config.database.pool_size)
        stack.callback(self._pool.terminate)
        await stack.enter_async_context(self._app.services.opened())
        transactions = Transactions(self._pool, self._store, progressed=self._on_progressed)

        self._slots = Slots(config.concurrency, freed=self._on_freed)
        self._configs = ConfigStore(self._store.sessions, self._store.schema)
        self._permit_store = PermitStore(self._store.sessions, self._store.schema)
        self._steering = Steering(
            self._configs,
            own_strict_percentage=config.max_strict_percentage,
            applied=self._on_config_applied,
        )
        self._lease = Lease(
            worker_row(self._app, config),
            lost=self._on_lease_lost,
        )
        self._orders = OrderStore(self._store.sessions, self._store.schema)
        self._interrupts = Interrupts(self._orders, self._lease, self._slots)
        self._audience = Audience(
            WatchStore(self._store.sessions, self._store.schema), self._lease, self._steering
        )
        self._measures = Measures(self._slots, self._steering, self._pool)
        self._census = Census(MeasureStore(self._store.sessions, self._store.schema), self._steering)
        self._housekeeper = self._make_housekeeper()
        self._retention = self._make_retention()
        schedules = ScheduleStore(self._store.sessions, self._store.schema)
        self._cron = Cron(schedules, self._app, poll_interval=self._poll_interval)
        self._finalizer = self._make_finalizer(transactions)
        self._executor = self._make_executor(transactions)
        stack.callback(self._executor.close)
        self._isolation = self._make_isolation()
        self._keeper = self._make_keeper()
        self._listener = self._make_listener()
        self._claimer = self._make_claimer()
        self._control = self._make_control()

    async def _tune(self) -> None:
        """Give the stations what the configuration says by now, as far as they can change while they run."""
        config = self._config.worker
        self._poll_interval = config.poll_interval.total_seconds()
        async with self._steering.between_claims:  # one claim knows one set of labels
            self._lease.describe(changed_row(self._lease.worker, config))
            self._slots.concurrency = config.concurrency
            self._steering.own_strict_percentage = config.max_strict_percentage
            self._claimer.begin_anew(self._poll_interval)
        for station in (self._housekeeper, self._cron, self._control):
            station.poll_interval = self._poll_interval
        self._housekeeper.lease = config.lease.total_seconds()
        self._keeper.renew_interval = config.renew_interval.total_seconds()
        self._keeper.stall_limit = config.stall_limit.total_seconds()
        if self._isolation is not None:
            self._isolation.follow(self._config)

    def _open_store(self, **options: Any) -> Awaitable[Store]:
        return Store.open(self._dsn, schema=self._config.database.schema_name, **options)

    def _make_housekeeper(self) -> Housekeeper:
        return Housekeeper(
            self._store,
            self._orders,
            self._configs,
            list(self._app.definitions),
            unpark=self._permit_store.unpark,
            look=self._look,
            poll_interval=self._poll_interval,
            lease=self._config.worker.lease.total_seconds(),
        )

    def _make_retention(self) -> Retention:
        return Retention(
            partial(self._open_store, connections=1),
            partial(alone, self._dsn, schema=self._config.database.schema_name),
        )

    def _make_finalizer(self, transactions: Transactions) -> Finalizer:
        return Finalizer(
            self._store,
            self._orders,
            self._slots,
            FailureHooks(self._app, transactions, self._store),
            self._audience,
            self._measures,
            promoted=self._look,
            expect=self._housekeeper.expect,
            has_dependants=lambda: self._housekeeper.has_dependants,
            leave=self._housekeeper.note_unsettled,
        )

    def _make_executor(self, transactions: Transactions) -> Executor:
        return Executor(
            self._app,
            self._slots,
            self._steering,
            transactions,
            Client(self._pool, self._app, schema=self._config.database.schema_name),
            worker_id=lambda: self._lease.worker_id,
            may_begin=self._lease.look,
            finish=self._finalizer.put,
        )

    def _make_keeper(self) -> LeaseKeeper:
        config = self._config.worker
        return LeaseKeeper(
            self._lease,
            self._steering,
            self._slots,
            open_store=partial(self._open_store, connections=1),
            renew_interval=config.renew_interval.total_seconds(),
            stall_limit=config.stall_limit.total_seconds(),
            asked=self._on_asked,
            watched=self._audience.look,
            end_process=self._end_process,
        )

    def _make_isolation(self) -> Isolation | None:
        if self._app_path is None:
            return None
        return Isolation(
            self._app_path,
            self._dsn,
            self._config,
            store=self._store,
            lease=self._lease,
            steering=self._steering,
            slots=self._slots,
        )

    @property
    def _listen_dsn(self) -> str:
        given = self._config.database.listen_url
        return given.get_secret_value() if given else self._dsn

    def _make_listener(self) -> Listener:
        schema = self._config.database.schema_name
        return Listener(
            self._listen_dsn,
            {
                f"{schema}_ready": self._hear,
                f"{schema}_runtime_config": hearing({"up_config": self._steering.hear}),
                f"{schema}_task_interrupt": hearing(
                    {
                        "interrupt_task": lambda _: self._interrupts.look(),
                        "run_task": lambda _: self._claimer.run_asked(),
                    }
                ),
                f"{schema}_schedules": lambda _: self._cron.wake.set(),
            },
            wake=self._catch_up,
        )

    def _make_claimer(self) -> Claimer:
        return Claimer(
            self._store,
            self._orders,
            self._lease,
            self._steering,
            self._slots,
            Permits(self._permit_store, self._lease, self._steering, self._slots),
            parks=self._permit_store,
            start=self._executor.start,
            audience=self._audience,
            measures=self._measures,
            hears=self._listener.up.is_set,
            poll_interval=self._poll_interval,
            takes_suspects=self._isolation is None,
        )

    def _make_control(self) -> Control:
        updates = ConfigUpdates(
            self._configs,
            self._listen_dsn,
            channel=f"{self._config.database.schema_name}_runtime_config_ack",
            hears=self._listener.up.is_set,
            declare_lost=self._store.declare_lost,
        )
        return Control(
            self._configs,
            self._lease,
            self._steering,
            self._slots,
            carry_out=updates.carry_out,
            measures=self._measures,
            finish=self._finalizer.put,
            doubt=self._claimer.doubt,
            poll_interval=self._poll_interval,
        )

    def _interrupt(self, why: Interruption) -> None:
        for execution in self._slots:
            execution.interrupt(why)

    def _on_lease_lost(self) -> None:
        self._slots.note_lease_lost()
        self._interrupt(Interruption.LEASE_LOST)

    def _on_freed(self) -> None:
        self._claimer.wake()

    def _on_config_applied(self) -> None:
        self._claimer.look()
        self._housekeeper.hasten()

    def _hear(self, what: str) -> None:
        if what == CONTROL:
            self._control.look()
        elif what == WATCHED:
            self._audience.look()
        elif what == AWAITED:
            self._housekeeper.note_dependants()
        else:
            self._claimer.look(what)

    def _on_progressed(self, execution: Execution, progress: str) -> None:
        self._audience.progressed(execution, progress)

    def _on_asked(self) -> None:
        self._interrupts.look()
        self._claimer.run_asked()

    def _catch_up(self) -> None:
        """Notices may have been missed."""
        self._look()
        self._control.look()
        self._on_asked()
        self._steering.wake.set()
        self._cron.wake.set()
        self._housekeeper.note_dependants()
        self._audience.look()

    def _look(self) -> None:
        self._claimer.look()

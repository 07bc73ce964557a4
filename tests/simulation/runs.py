"""Run worlds, and make those that fail smaller until only what matters is left."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tests.simulation.judge import InvariantError
from tests.simulation.scenario import Scenario, TaskSpec, WorkerSpec, plan
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ORDERS = 12  # how many orders of events are tried before a smaller world counts as sound


@dataclass(frozen=True, slots=True)
class Failure:
    """A world in which an invariant doesn't hold."""

    scenario: Scenario
    message: str

    @property
    def kind(self) -> str:
        """The invariant, whichever tasks and workers it was about."""
        return re.sub(r"[\d.]+", "n", self.message)


def run(scenario: Scenario, broken: Iterable[str] = ()) -> Failure | World:
    """Run one world to its end."""
    world = World(scenario, broken=frozenset(broken))
    try:
        world.run()
    except InvariantError as error:
        return Failure(scenario, str(error))
    return world


def trace(scenario: Scenario, broken: Iterable[str] = ()) -> list[str]:
    """What happened in a world, line by line; the last says which invariant didn't hold."""
    world = World(scenario, broken=frozenset(broken), traced=True)
    try:
        world.run()
    except InvariantError as error:
        world.judge.note(f"*** {error}")
    return world.judge.trace or []


def first_failure(seeds: Iterable[int], broken: Iterable[str] = ()) -> Failure | None:
    """The first of these seeds whose world fails."""
    for seed in seeds:
        result = run(plan(seed), broken)
        if isinstance(result, Failure):
            return result
    return None


def shrink(failure: Failure, broken: Iterable[str] = ()) -> Failure:
    """A smaller world that fails in the same way."""
    smaller: Failure | None = failure
    while smaller is not None:
        failure = smaller
        smaller = next(_smaller(failure, broken), None)
    return _shortest(failure, broken)


def _smaller(failure: Failure, broken: Iterable[str]) -> Iterator[Failure]:
    for scenario in _reductions(failure.scenario):
        yield from _same_failures(failure, scenario, broken)


def _same_failures(failure: Failure, scenario: Scenario, broken: Iterable[str]) -> Iterator[Failure]:
    for seed in (scenario.seed, *range(_ORDERS)):
        result = run(replace(scenario, seed=seed), broken)
        if isinstance(result, Failure) and result.kind == failure.kind:
            yield result


def _shortest(failure: Failure, broken: Iterable[str]) -> Failure:
    alike = [failure, *_same_failures(failure, failure.scenario, broken)]
    return min(alike, key=lambda one: len(trace(one.scenario, broken)))


def _reductions(scenario: Scenario) -> Iterator[Scenario]:
    """Every world that is one step simpler."""
    for tasks in _without_one(scenario.tasks):
        if tasks:
            yield replace(scenario, tasks=tasks)
    for faults in _without_one(scenario.faults):
        yield replace(scenario, faults=faults)
    if len(scenario.workers) > 1:
        last = len(scenario.workers) - 1
        faults = tuple(fault for fault in scenario.faults if fault.worker < last)
        yield replace(scenario, workers=scenario.workers[:last], faults=faults)
    yield from _plainer(scenario, "tasks", TaskSpec(at=0.0, acts=()))
    yield from _plainer(scenario, "workers", WorkerSpec())


def _plainer(scenario: Scenario, what: str, plain: Any) -> Iterator[Scenario]:
    """Worlds in which one field of one task or worker has its plain value."""
    things = getattr(scenario, what)
    for n, thing in enumerate(things):
        for name in plain.__dataclass_fields__:
            for value in _plainer_values(getattr(thing, name), getattr(plain, name)):
                changed = replace(thing, **{name: value})
                yield replace(scenario, **{what: (*things[:n], changed, *things[n + 1 :])})


def _plainer_values(value: Any, plain: Any) -> Iterator[Any]:
    if value == plain:
        return
    yield plain
    if isinstance(value, tuple):  # the acts
        yield from (fewer for fewer in _without_one(value) if fewer)


def _without_one(things: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    return (things[:n] + things[n + 1 :] for n in range(len(things)))

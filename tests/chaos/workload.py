"""What the enqueuer asks for: a mixture of everything, drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LABELS = ("red", "blue")
"""The labels that workers of the chaos run need."""

HOOKED = frozenset({"doomed", "overtime", "poison"})
"""Names whose failure hook writes a row to `chaos.hooks`."""

HOOK_FAILS = frozenset({"accursed"})
"""Names whose failure hook raises."""

BATCHES = 20
"""Some tasks carry the tag of one of so many batches."""

FOREVER = "forever:"
"""How unique tags begin that are never free again."""


@dataclass(frozen=True, slots=True)
class Order:
    """One enqueue: the arguments of `Client.enqueue`."""

    name: str
    payload: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


_BATCHED = 0.3

Kind = Callable[[random.Random, int], Order]


def draw(rng: random.Random, number: int, *, poison: float = 0.0005) -> Order:
    """The order with that number. `poison` is the share of tasks that kill their worker each time."""
    if rng.random() < poison:
        return Order("poison")
    [kind] = rng.choices(list(_KINDS), weights=list(_KINDS.values()))
    order = kind(rng, number)
    if rng.random() < _BATCHED:
        spared = ["spared"] if rng.random() < _BATCHED else []
        order.options["tags"] = [f"batch:{rng.randrange(BATCHES)}", "some", *spared]
    return order


def _plain(name: str) -> Kind:
    return lambda rng, number: Order(name)


def _lasting(name: str, shortest: float, longest: float) -> Kind:
    return lambda rng, number: Order(name, {"seconds": round(rng.uniform(shortest, longest), 3)})


def _serial(rng: random.Random, number: int) -> Order:
    options: dict[str, Any] = {"serial_key": f"key:{rng.randrange(5)}"}
    if rng.random() < 0.5:
        options["serial_id"] = number
    return Order("serial", {"seconds": round(rng.uniform(0.0, 0.4), 3)}, options)


def _flaky(rng: random.Random, number: int) -> Order:
    return Order("flaky", {"times": rng.randint(1, 3)})


def _doomed(rng: random.Random, number: int) -> Order:
    return Order("doomed", {"fatal": rng.random() < 0.3})


def _family(rng: random.Random, number: int) -> Order:
    return Order("family", {"children": rng.randint(1, 3), "generations": rng.randint(1, 3)})


def _big(rng: random.Random, number: int) -> Order:
    return Order("big", {"kilobytes": rng.choice([100, 500, 1500])})


def _once(rng: random.Random, number: int) -> Order:
    # The tags of neighbours, so that enqueues of the same one race.
    return _quick(unique_tag=f"{FOREVER}{number // 20}")


def _again(rng: random.Random, number: int) -> Order:
    return _quick(unique_tag=f"again:{rng.randrange(5)}", unique_until="finished")


def _delayed(rng: random.Random, number: int) -> Order:
    return _quick(delay=f"{rng.randint(100, 3000)}ms")


def _perishable(rng: random.Random, number: int) -> Order:
    return _quick(deadline=f"{rng.randint(500, 8000)}ms")


def _strict(rng: random.Random, number: int) -> Order:
    return _quick(priority=rng.randint(1, 9))


def _labelled(rng: random.Random, number: int) -> Order:
    return _quick(labels=[rng.choice(LABELS)], weight=rng.randint(1, 5))


def _quick(**options: Any) -> Order:
    return Order("quick", {}, options)


_KINDS: dict[Kind, float] = {
    _plain("quick"): 30,
    _lasting("slow", 0.2, 2.0): 30,
    _lasting("slow", 4.0, 14.0): 3,  # some outlast a lease by far
    _serial: 6,
    _flaky: 5,
    _plain("quiet"): 2,
    _plain("snoozing"): 3,
    _plain("exiting"): 2,
    _doomed: 4,
    _plain("overtime"): 1,
    _plain("accursed"): 1,
    _lasting("threaded", 0.05, 0.3): 4,
    _plain("blocking"): 0.5,
    _plain("stubborn"): 1,
    _plain("effect"): 8,
    _family: 4,
    _big: 0.5,
    _once: 5,
    _again: 2,
    _delayed: 5,
    _perishable: 3,
    _strict: 6,
    _labelled: 6,
}

"""The protocol holds in worlds full of faults, and each way of breaking it is noticed in some of them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.rules import MUTANTS
from tests.simulation.runs import Failure, first_failure, run, shrink, trace
from tests.simulation.scenario import WEIGHTS, Fault, Scenario, TaskSpec, WorkerSpec, plan
from tests.simulation.world import World

_FEW_THOUSAND = 8000


def test_every_invariant_holds_in_thousands_of_worlds() -> None:
    failure = first_failure(range(3000))
    assert failure is None, f"python -m tests.simulation --seed {failure.scenario.seed}: {failure.message}"


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_way_of_breaking_the_protocol_breaks_an_invariant(mutant: str) -> None:
    assert first_failure(range(_FEW_THOUSAND), [mutant]) is not None


def test_a_seed_gives_the_same_world_every_time() -> None:
    assert trace(plan(11)) == trace(plan(11))
    assert trace(plan(11)) != trace(plan(12))


def test_a_failing_world_shrinks_to_what_matters() -> None:
    mutant = ["deaf go on"]
    failure = first_failure(range(_FEW_THOUSAND), mutant)
    assert failure is not None
    smallest = shrink(failure, mutant)
    again = run(smallest.scenario, mutant)
    assert isinstance(again, Failure)
    assert again.message == smallest.message
    assert smallest.kind == failure.kind
    # It takes one worker that can't renew, and one handler that doesn't stop.
    assert (
        len(smallest.scenario.workers) == len(smallest.scenario.tasks) == len(smallest.scenario.faults) == 1
    )
    assert len(trace(smallest.scenario, mutant)) < len(trace(failure.scenario, mutant))
    assert isinstance(run(smallest.scenario), World)


def test_a_seed_can_be_replayed_from_the_command_line() -> None:
    sound = _command("--seed", "3")
    assert sound.returncode == 0
    assert "seed 3 is sound" in sound.stdout
    broken = _command("--seed", "0", "--mutant", "token reset")
    assert broken.returncode == 1
    assert "*** task" in broken.stdout


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    root = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=root)


@pytest.mark.parametrize("kind", ["jump", "restart", "freeze"])
def test_groups_share_a_saturated_fleet_by_weight_whatever_goes_wrong(kind: str) -> None:
    tasks = tuple(
        TaskSpec(at=0.0, acts=(("complete", 1.0),), label_set=label_set)
        for label_set in ("gold", "blue", "")
        for _ in range(100)
    )
    faults = tuple(Fault(at, kind, 0, 2.0) for at in (3.0, 9.0))
    world = run(Scenario(1, (WorkerSpec(), WorkerSpec(concurrency=3)), tasks, faults))
    assert isinstance(world, World)
    # While each group has backlog: each worker keeps within a pick or two of each group's share.
    first = Counter(world.spec_of(task_id).label_set or "default" for task_id in world.judge.claims[:150])
    for group, weight in WEIGHTS.items():
        assert abs(first[group] - 150 * weight / sum(WEIGHTS.values())) <= 2 * 2

"""The benchmark harness, as far as it can be judged without measuring anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.contenders import CONTENDERS, chosen
from benchmarks.contenders.contender import leading, with_host
from benchmarks.measures import MEASURES, wanted
from benchmarks.measures.measure import Sample, percentiles
from benchmarks.measures.steady import Sent, verdict
from benchmarks.options import parse
from benchmarks.results import Taken, as_json, merge_into

README = Path(__file__).parents[2] / "benchmarks" / "README.md"


def taken(*samples: Sample) -> Taken:
    return Taken("a title", "2026-01-01", {}, {}, {}, {}, samples=list(samples))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_the_page_names_every_measure(measure):
    assert f"| `{measure.name}` |" in README.read_text()


@pytest.mark.parametrize("peer", sorted({contender.peer for contender in CONTENDERS}))
def test_the_page_names_every_peer(peer):
    assert f"| `{peer}" in README.read_text()


def test_every_name_means_one_contender():
    names = [contender.name for contender in CONTENDERS]
    assert len(names) == len(set(names))


def test_a_project_and_a_configuration_can_be_chosen():
    assert {contender.peer for contender in chosen(["asynctaskd"])} == {"asynctaskd"}
    assert [contender.name for contender in chosen(["pgqueuer-5x10"])] == ["pgqueuer-5x10"]
    with pytest.raises(SystemExit, match="--only must be one of .*, got 'celery'"):
        chosen(["celery"])


def test_one_configuration_stands_for_its_project_unless_another_was_chosen():
    assert len(leading(list(CONTENDERS))) == len({contender.peer for contender in CONTENDERS})
    assert [c.name for c in leading(chosen(["asynctaskd-10"]))] == ["asynctaskd-10"]


def test_the_soak_is_run_only_when_asked_for():
    assert "soak" not in [measure.name for measure in wanted(())]
    assert [measure.name for measure in wanted(("soak",))] == ["soak"]


def test_a_flag_wins_over_what_quick_changes():
    assert parse(["--quick", "--tasks", "70"]).tasks == 70
    assert parse(["--quick"]).tasks < parse([]).tasks


def test_a_url_of_a_socket_gets_a_host():
    assert with_host("postgresql://me@/db?host=/run") == "postgresql://me@localhost/db?host=/run"
    assert with_host("postgresql:///db?host=/run") == "postgresql://localhost/db?host=/run"
    assert with_host("postgresql://me@there/db") == "postgresql://me@there/db"


def test_rounds_become_a_median_with_its_spread(tmp_path):
    file = tmp_path / "bench.json"
    samples = [Sample("us", figures={"tasks/s": n, "CPU": None}) for n in (1, 2, 9)]
    merge_into(file, as_json({"drain": taken(*samples)}))
    figures = json.loads(file.read_text())["drain"]["rows"][0]["figures"]
    assert figures == {"tasks/s": {"median": 2, "min": 1, "max": 9, "values": [1, 2, 9]}, "CPU": None}


def test_what_wasnt_measured_again_is_kept(tmp_path):
    file = tmp_path / "bench.json"
    merge_into(file, as_json({"bulk": taken(Sample("us", figures={"rows/s": 5.0}))}))
    merge_into(file, as_json({"drain": taken(Sample("us", figures={"tasks/s": 7.0}))}))
    assert list(json.loads(file.read_text())) == ["bulk", "drain"]


def test_percentiles_are_in_milliseconds_and_none_of_nothing():
    assert percentiles([0.001, 0.002, 0.003], 50) == {"p50 ms": 2}
    assert percentiles([], 99) == {"p99 ms": None}


def test_a_backlog_builds_where_waits_grow():
    growing = [(float(n), n * 1.5) for n in range(1, 101)]
    level = [(float(n), n + 0.5) for n in range(1, 101)]
    assert verdict(growing, 50, Sent(100, 1), rate=100) == "a backlog builds"
    assert verdict(level, 50, Sent(100, 1), rate=100) == "keeps up"
    assert verdict(level, 0, Sent(50, 1), rate=100) == "the producer falls behind"

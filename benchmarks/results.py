"""What was measured, as it is kept: `results/bench.json`."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.contender import ROOT

if TYPE_CHECKING:
    from benchmarks.contenders.contender import Contender
    from benchmarks.measures.measure import Sample
    from benchmarks.options import Options

RECORD = ROOT / "benchmarks" / "results"
SCRATCH = ROOT / "build" / "bench"
"""For what is no record, so that it can't be taken for one."""


@dataclass
class Taken:
    """One measure, with the circumstances it was taken under; the runner adds samples and failures."""

    title: str
    date: str
    machine: dict[str, Any]
    options: dict[str, Any]
    contenders: dict[str, dict[str, str]]
    skipped: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    def groups(self) -> dict[tuple[str, str], list[Sample]]:
        """The samples of all rounds, by subject and case, in the order of the first round."""
        groups: dict[tuple[str, str], list[Sample]] = {}
        for sample in self.samples:
            groups.setdefault((sample.subject, sample.case), []).append(sample)
        return groups


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).date().isoformat()


def machine(postgres: str, settings: dict[str, str]) -> dict[str, Any]:
    """What it was measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.system(),
        "python": platform.python_version(),
        "postgresql": postgres,
        "settings": settings,
    }


def facts(contender: Contender) -> dict[str, str]:
    """What the reader of a figure has to know of a contender."""
    return {
        "version": contender.version(),
        "settings": contender.settings,
        "history": contender.history,
    }


def options_of(options: Options) -> dict[str, Any]:
    """The numbers of a run; where its database is says nothing about figures."""
    return {name: value for name, value in asdict(options).items() if name not in ("database", "as_json")}


def values(samples: list[Sample], figure: str) -> list[float]:
    """A figure's value in each round, where it is known."""
    found = (sample.figures.get(figure) for sample in samples)
    return [value for value in found if value is not None]


def spread(found: list[float]) -> dict[str, Any] | None:
    """Median, least, greatest and all of a figure's values; None where there is none."""
    if not found:
        return None
    return {
        "median": _short(statistics.median(found)),
        "min": _short(min(found)),
        "max": _short(max(found)),
        "values": _rounded(found),
    }


def as_json(taken: dict[str, Taken]) -> dict[str, Any]:
    """By measure, each figure with its median, least, greatest and all of its values."""
    return {name: _measure_as_json(measure) for name, measure in taken.items()}


def merge_into(file: Path, measures: dict[str, Any]) -> None:
    """Replace the measures that were taken, given as JSON has them, and keep the others."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept | measures, indent=1, ensure_ascii=False) + "\n")


def _measure_as_json(taken: Taken) -> dict[str, Any]:
    written = {name: value for name, value in vars(taken).items() if name != "samples"}
    rows = [_row(subject, case, samples) for (subject, case), samples in taken.groups().items()]
    return written | {"rows": rows}


def _row(subject: str, case: str, samples: list[Sample]) -> dict[str, Any]:
    row: dict[str, Any] = {"subject": subject, "case": case}
    row["figures"] = {name: spread(values(samples, name)) for name in samples[0].figures}
    row["series"] = {
        name: [_rounded(series) for series in (sample.series[name] for sample in samples)]
        for name in samples[0].series
    }
    row["notes"] = [sample.note for sample in samples]
    return {name: value for name, value in row.items() if value and value != [""] * len(samples)}


def _rounded(series: list[float]) -> list[float]:
    return [_short(value) for value in series]


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )

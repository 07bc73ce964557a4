"""The fleet at one moment: how fast it works, how much waits, and what needs somebody to look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from asynctaskd.control.browsing import GroupPulse, Pulse
from asynctaskd.web.dashboard.charts import Chart, bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.control.fleet import GroupState, Overview
    from asynctaskd.web.dashboard.site import Site

_SPAN = timedelta(minutes=5)
_STEPS = 60
_SHOWN_HANDLERS = 12


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A group with what has ended in it of late; `chart` of that."""

    state: GroupState
    pulse: GroupPulse
    rate: float
    chart: Chart

    @property
    def error_rate(self) -> float | None:
        """The share of what ended that failed."""
        return self.pulse.failed / self.pulse.ended if self.pulse.ended else None


class OverviewPage:
    """`/`, and the part of it that is asked for again and again."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._site.page("/", self.show, "overview")]

    async def show(self, request: Request) -> Response:
        """The whole page; to htmx its live part."""
        desk = self._site.reading
        overview = await desk.overview()
        pulse = await desk.pulse(_SPAN, steps=_STEPS, weighted=sorted(overview.config.weights))
        live = request.headers.get("hx-request") == "true"
        context = {"section": "overview", "title": "Overview", **_facts(overview, pulse)}
        return self._site.render(request, "overview_live.html" if live else "overview.html", context)


def _facts(overview: Overview, pulse: Pulse) -> dict[str, object]:
    groups = [_line(group, pulse) for group in overview.groups]
    ended = sum(one.ended for one in pulse.groups.values())
    failed = sum(one.failed for one in pulse.groups.values())
    ages = [overview.strict.oldest_age, *(group.oldest_age for group in overview.groups)]
    return {
        "overview": overview,
        "pulse": pulse,
        "groups": groups,
        "handlers": overview.handlers[:_SHOWN_HANDLERS],
        "ready": sum(group.ready for group in overview.groups) + overview.strict.ready,
        "is_more": overview.strict.is_more or any(group.is_more for group in overview.groups),
        "running": sum(worker.running for worker in overview.workers),
        "slots": sum(worker.concurrency for worker in overview.workers),
        "rate": ended / pulse.seconds,
        "failed": failed,
        "error_rate": failed / ended if ended else None,
        "oldest_age": max((age for age in ages if age is not None), default=None),
        "stalls": [worker for worker in overview.workers if worker.stall],
        "lagging": [worker for worker in overview.workers if worker.config_version < overview.config.version],
        "full": [limit for limit in overview.limits if limit.running >= limit.limit],
        "chart": _whole(list(pulse.groups.values()), pulse.seconds / _STEPS),
    }


def _line(group: GroupState, pulse: Pulse) -> GroupLine:
    of_late = pulse.groups.get(group.name) or GroupPulse(
        name=group.name, steps=(0,) * _STEPS, failures=(0,) * _STEPS
    )
    chart = bars(of_late.steps, of_late.failures, width=120, height=24)
    return GroupLine(group, of_late, of_late.ended / pulse.seconds, chart)


def _whole(groups: Sequence[GroupPulse], seconds: float) -> Chart:
    """All groups together, in tasks a second."""
    totals = [sum(one.steps[nth] for one in groups) / seconds for nth in range(_STEPS)]
    failed = [sum(one.failures[nth] for one in groups) / seconds for nth in range(_STEPS)]
    return bars(totals, failed, width=600, height=120)

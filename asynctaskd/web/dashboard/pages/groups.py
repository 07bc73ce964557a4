"""Groups and labels, with the controls that change them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asynctaskd.config.runtime import MAPPINGS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.control.fleet import GroupState, Overview
    from asynctaskd.web.dashboard.site import Site


@dataclass(frozen=True, slots=True)
class LabelLine:
    """What the runtime configuration says of a label, and the group that it makes, if any."""

    label: str
    weight: int | None
    limit: int | None
    max_run_time: str | None
    max_attempts: int | None
    is_paused: bool
    running: int | None
    group: GroupState | None


class GroupsPage:
    """`/groups`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._site.page("/groups", self.show, "groups")]

    async def show(self, request: Request) -> Response:
        """Each label of which something is said, or that a live worker offers."""
        overview = await self._site.reading.overview()
        context = {
            "section": "groups",
            "title": "Groups",
            "overview": overview,
            "lines": _lines(overview),
            "default": next(group for group in overview.groups if group.name == "default"),
        }
        return self._site.render(request, "groups.html", context)


def _lines(overview: Overview) -> list[LabelLine]:
    config = overview.config
    labels = {*config.paused_labels, *(label for field in MAPPINGS for label in getattr(config, field))}
    offered = {label for worker in overview.workers for label in worker.labels}
    labels |= {label for label in offered if not label.startswith("worker:")}
    groups = {group.name: group for group in overview.groups}
    running = {limit.label: limit.running for limit in overview.limits}
    return [
        LabelLine(
            label,
            config.weights.get(label),
            config.limits.get(label),
            config.max_run_times.get(label),
            config.max_attempts.get(label),
            label in config.paused_labels,
            running.get(label),
            groups.get(label),
        )
        for label in sorted(labels)
    ]

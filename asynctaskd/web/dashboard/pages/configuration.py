"""The runtime configuration: its history, changes with their preview, and each worker's answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.responses import RedirectResponse

from asynctaskd.config.assignments import assigned
from asynctaskd.config.runtime import RuntimeConfig, read_leniently
from asynctaskd.errors import InvalidInputError
from asynctaskd.web.dashboard.site import id_in, path_of, text_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.web.dashboard.site import Site

_SHOWN = 50
_TIMEOUT = "30s"

# The fields of the form for a label that isn't on the page yet.
_OF_A_LABEL = {"weight": "weights", "limit": "limits"}
_NO_ASSIGNMENTS = ("csrf", "expires", "version")


class ConfigurationPages:
    """`/configuration`, `/configuration/change` and `/changes/ID`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where they are."""
        page, change = self._site.page, self._site.change
        return [
            page("/configuration", self.show, "configuration"),
            page("/configuration/change", self.preview, "change"),
            change("/configuration/change", self.carry_out, "carry_out_change"),
            change("/configuration/rollback", self.roll_back, "roll_back"),
            change("/configuration/promote", self.promote, "promote"),
            page("/changes/{task_id:int}", self.report, "report"),
        ]

    async def show(self, request: Request) -> Response:
        """What holds, and what each version has changed."""
        versions = await self._site.reading.runtime_config_history(_SHOWN)
        context = {
            "section": "configuration",
            "title": "Configuration",
            "now": _in_force(versions),
            "problem": read_leniently(_in_force(versions))[1],
            "versions": [one | {"diff": _diff_in(one, versions)} for one in versions],
        }
        return self._site.render(request, "configuration.html", context)

    async def preview(self, request: Request) -> Response:
        """What a change would come to."""
        now = await self._site.reading.runtime_config()
        assignments = _assignments(request.query_params.multi_items())
        changes = _changed(assignments, now)
        preview = await self._site.reading.preview_runtime_config(**changes)
        context = {
            "section": "groups",
            "title": "Change the configuration",
            "assignments": assignments,
            "diff": _diff(asdict(now), changes),
            "preview": preview,
        }
        return self._site.render(request, "change.html", context)

    async def carry_out(self, request: Request, form: FormData) -> Response:
        """Ask for it; the report tells how far it is."""
        now = await self._site.reading.runtime_config()
        given = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
        changes: Any = _changed(_assignments(given), now)
        before = {name: getattr(now, name) for name in changes}
        if expires := text_in(form, "expires"):
            changes["expires"] = expires
        return await self._ask(request, "configure", changes, before=before, after=changes)

    async def roll_back(self, request: Request, form: FormData) -> Response:
        """Publish what a version said as a new one; 0 are the defaults."""
        version = text_in(form, "version")
        if not version.isdecimal() or len(version) > 18:
            raise InvalidInputError(f"version must be a number, got {version!r}")
        now = await self._site.reading.runtime_config_history(1)
        before, after = {"version": now[0]["version"] if now else 0}, {"version": int(version)}
        return await self._ask(
            request, "roll_back", {"rollback_to": int(version)}, before=before, after=after
        )

    async def promote(self, request: Request, _: FormData) -> Response:
        """Let all workers apply what one of them is trying."""
        return await self._ask(request, "promote", {"promote": True})

    async def report(self, request: Request) -> Response:
        """Which workers apply it, and which haven't answered."""
        task_id = id_in(request)
        report = await self._site.reading.runtime_config_report(task_id, timeout="0s")
        context = {
            "section": "configuration",
            "title": "Change of the configuration",
            "task_id": task_id,
            "report": report,
            "is_open": report.status == "not_converged",
        }
        live = request.headers.get("hx-request") == "true"
        return self._site.render(request, "report_live.html" if live else "report.html", context)

    async def _ask(
        self, request: Request, action: str, change: dict[str, Any], *, before: Any = None, after: Any = None
    ) -> Response:
        async with self._site.noted(request, action, {}, before=before, after=after) as deed:
            task_id = await self._site.doing.request_runtime_config(timeout=_TIMEOUT, **change)
            deed.target["task"] = task_id
            deed.outcome = f"asked for by task {task_id}"
        return RedirectResponse(path_of(request, "report", task_id=task_id), 303)


def _assignments(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """FIELD → VALUE, as `asynctaskd config set` takes them."""
    fields = {key: value.strip() for key, value in given if key not in _NO_ASSIGNMENTS}
    label = fields.pop("label", None)
    if label is None:
        return fields
    return {f"{_OF_A_LABEL.get(key, key)}.{label}": value for key, value in fields.items() if value}


def _changed(assignments: Mapping[str, str], now: RuntimeConfig) -> dict[str, Any]:
    """The fields that get another value."""
    values = assigned((f"{key}={value}" for key, value in assignments.items()), now)
    changes = {name: value for name, value in values.items() if value != getattr(now, name)}
    if not changes:
        raise InvalidInputError("nothing would change: that is what holds already")
    return changes


def _in_force(versions: list[dict[str, Any]]) -> dict[str, Any]:
    defaults = asdict(RuntimeConfig())
    newest = next((one for one in versions if one["reach"] == "all"), defaults)
    return {name: newest[name] for name in defaults}


def _diff_in(version: Mapping[str, Any], versions: list[dict[str, Any]]) -> list[tuple[str, Any, Any]]:
    """What a version has changed: field by field, before and after."""
    known = {one["version"]: one for one in versions}
    base = known.get(version["based_on"] or 0, None if version["based_on"] else asdict(RuntimeConfig()))
    changes = version["changes"] or {}
    fields = [name for name in asdict(RuntimeConfig()) if name in changes]
    return _diff(base, {name: version[name] for name in fields})


def _diff(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Entry by entry, where a field maps labels to something."""
    rows: list[tuple[str, Any, Any]] = []
    for field, value in after.items():
        old = None if before is None else before[field]
        if isinstance(value, dict) and isinstance(old, dict):
            labels = sorted({*old, *value})
            rows += [
                (f"{field}.{one}", old.get(one), value.get(one))
                for one in labels
                if old.get(one) != value.get(one)
            ]
        else:
            rows.append((field, old, value))
    return rows

"""What `asynctaskd config` prints."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from asynctaskd.cli.failures import ExitCode, complain
from asynctaskd.cli.output import counted, print_facts, print_json, print_table, printable, shown
from asynctaskd.config.convergence import ConfigReport
from asynctaskd.config.runtime import MAPPINGS, RuntimeConfig, read_leniently

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from uuid import UUID

    from asynctaskd.control.preview import Preview

_MOST_NAMED = 10


def print_config(versions: list[dict[str, Any]], live: list[dict[str, Any]], *, as_json: bool) -> ExitCode:
    """What holds, what is being tried, and who applies it; `versions` are the newest ones."""
    row = _in_force(versions)
    _, problem = read_leniently(row)
    _print_row(row, versions, live, as_json=as_json)
    if problem is None:
        return ExitCode.FINE
    complain(problem)
    return ExitCode.FAILED


def _in_force(versions: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of the newest version that is for all, as they stand there, or else the defaults."""
    defaults = asdict(RuntimeConfig())
    newest = next((one for one in versions if one["reach"] == "all"), defaults)
    return {name: newest[name] for name in defaults}


def _print_row(
    row: dict[str, Any], versions: list[dict[str, Any]], live: list[dict[str, Any]], *, as_json: bool
) -> None:
    trial = next((one for one in versions if one["reach"] == "canary"), None)
    workers = [
        {name: one[name] for name in ("id", "hostname", "pid", "applied_config_version")} for one in live
    ]
    if as_json:
        print_json(row | {"canary": trial, "workers": workers})
        return
    own = row["max_strict_percentage"] is None
    print_facts(
        row
        | {"max_strict_percentage": "each worker's own" if own else row["max_strict_percentage"]}
        | {name: _pairs(row[name]) for name in MAPPINGS}
    )
    applying = sum(one["applied_config_version"] >= row["version"] for one in workers)
    typer.echo(f"\napplied by {applying} of {len(workers)} live workers")
    if trial is not None:
        typer.echo(
            f"version {trial['version']} is being tried by {trial['canary_worker']} "
            f"until {shown(trial['canary_until'])}: {shown(trial['changes'])}"
        )
    for one in versions:
        if one["reach"] == "all" and one["expires_at"] and not one["expired_at"]:
            typer.echo(
                f"version {one['version']} expires at {shown(one['expires_at'])}: {shown(one['changes'])}"
            )


def print_history(versions: list[dict[str, Any]]) -> None:
    """One version a line."""
    if not versions:
        typer.echo("nothing was ever changed: the defaults hold")
        return
    rows = (
        (one["version"], one["created_at"], one["created_by"], _note(one), one["changes"]) for one in versions
    )
    print_table(("VERSION", "CREATED", "BY", "NOTE", "CHANGES"), rows, fixed=2)


def print_preview(preview: Preview, *, as_json: bool) -> None:
    """Shares of the normal lane and strict caps, before and after."""
    if as_json:
        print_json(asdict(preview))
        return
    shares = ((group, _percent(before), _percent(after)) for group, (before, after) in preview.shares.items())
    print_table(("GROUP", "SHARE NOW", "THEN"), shares, fixed=3)
    typer.echo("")
    caps = ((one.worker_id, one.concurrency, one.before, one.after, one.host) for one in preview.caps)
    print_table(("WORKER", "SLOTS", "STRICT NOW", "THEN", "HOST"), caps, fixed=4)
    if not preview.caps:
        typer.echo("there is no live worker")


def print_report(report: ConfigReport, *, as_json: bool) -> ExitCode:
    """What became of a change; returns the exit code that stands for it."""
    if as_json:
        print_json(report.as_json())
    elif report.status == "superseded":
        typer.echo(f"version {report.version} was superseded by a newer one")
    elif report.status == "converged":
        typer.echo(f"version {report.version} is applied by {counted(len(report.applied), 'live worker')}")
    if report.canary is not None and not as_json:
        typer.echo(f"trial {report.canary.outcome.replace('_', ' ')}: {printable(report.canary.because)}")
    if report.status == "not_converged":
        complain(_silence(report))
        return ExitCode.NOT_CONVERGED
    rolled_back = report.canary is not None and report.canary.outcome == "rolled_back"
    return ExitCode.FAILED if rolled_back else ExitCode.FINE


def print_unchanged(version: int, *, as_json: bool) -> ExitCode:
    """What becomes of a change that changes nothing: no version is written."""
    if as_json:
        print_json(ConfigReport(version=version, status="converged").as_json() | {"status": "unchanged"})
    else:
        typer.echo(f"nothing changes: version {version} says so already")
    return ExitCode.FINE


def tell_progress(report: ConfigReport) -> None:
    """For whom one waits; whoever has applied a version and isn't through with it is trying it."""
    trying = _named(report, report.applied if report.status == "not_converged" else ())
    whom = _named(report, report.lagging) or (f"the trial on {trying}" if trying else "the report")
    typer.echo(f"waiting for {whom} …", err=True)


def _silence(report: ConfigReport) -> str:
    if report.version is None:
        return (
            f"no worker has come to it: {_named(report, report.lagging) or 'none is live'}. "
            "It is carried out as soon as one does."
        )
    parts = [f"version {report.version} is applied by {counted(len(report.applied), 'live worker')}"]
    if report.lagging:
        parts.append(f"not in time by {_named(report, report.lagging)}")
    parts += [f"rejected by {_named(report, [one])}: {why}" for one, why in report.rejected.items()]
    return "; ".join(parts)


def _named(report: ConfigReport, workers: Iterable[UUID]) -> str:
    names = [f"{report.hosts.get(one, '?')} ({one})" for one in workers]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _note(version: Mapping[str, Any]) -> str:
    parts: list[str] = []
    if version["canary_worker"] is not None:
        parts.append({"canary": "being tried", "all": "promoted", "nobody": "rolled back"}[version["reach"]])
    if version["expired_at"] is not None:
        parts.append("expired")
    elif version["expires_at"] is not None and version["expires_at"] > datetime.now(UTC):
        parts.append(f"expires {shown(version['expires_at'])}")
    return ", ".join(parts)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _pairs(numbers: Mapping[str, object]) -> str | None:
    return ", ".join(f"{label}={number}" for label, number in sorted(numbers.items())) or None

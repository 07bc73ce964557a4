"""Are vulnerabilities known of what is locked? Asked of a service, by pip-audit.

    python -m tools.audit [OPTIONS OF PIP-AUDIT]

Ends with 1 where there are some. Where the service can't be reached, or doesn't answer for a package, nothing
was audited, which is said, and is no failure: work goes on offline.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tools.lock import DEV

_PROBE = "typer"


def main(options: list[str]) -> int:
    """Audit the lock; the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        # One of them first: offline, each of a hundred would be waited for.
        probe = Path(folder) / "requirements.txt"
        probe.write_text(_entry_of(_PROBE))
        found, said = _audit(probe, options)
    if found and not _skipped(found):
        found, said = _audit(DEV, options)
    if found is None or len(_skipped(found)) == len(found):
        print(f"NOT AUDITED: the service that knows vulnerabilities doesn't answer ({said})")
        return 0
    return _report(found)


def _report(found: list[dict[str, Any]]) -> int:
    skipped, vulnerable = _skipped(found), [one for one in found if one.get("vulns")]
    if skipped:
        print(f"NOT AUDITED: {', '.join(skipped)}: the service knows nothing of them")
    for one in vulnerable:
        for flaw in one["vulns"]:
            cure = (
                f"fixed in {', '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else "there is no fix"
            )
            print(f"{one['name']} {one['version']}: {flaw['id']}, {cure}")
    print(f"{len(found) - len(skipped)} packages audited, {len(vulnerable)} of them vulnerable")
    return 1 if vulnerable else 0


def _skipped(found: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in found if "skip_reason" in one]


def _entry_of(name: str) -> str:
    """The lines of the lock that pin a package."""
    lines = DEV.read_text("utf8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"{name}=="))
    end = next(
        number for number in range(start + 1, len(lines)) if not lines[number].lstrip().startswith("--")
    )
    return "\n".join(lines[start:end])


def _audit(requirements: Path, options: list[str]) -> tuple[list[dict[str, Any]] | None, str]:
    """What pip-audit found of each package, None where it failed; and what it said last."""
    how = ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", *how, "--requirement", str(requirements), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or ["no word"])[-1]
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except ValueError:
        return None, last
    reasons = [one["skip_reason"] for one in found if "skip_reason" in one]
    return found, (reasons or [last])[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

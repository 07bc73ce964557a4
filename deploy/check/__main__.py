"""`python -m deploy.check [KIND …]` prints a line for each thing that is wrong, and exits with 1 if any."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from deploy.check import docker, grafana, image, kubernetes, prometheus, systemd
from deploy.check.tools import MissingToolError

DEPLOY = Path(__file__).parent.parent
KINDS: Mapping[str, Callable[[Path], Iterable[str]]] = {
    "docker": docker.check,
    "grafana": grafana.check,
    "image": image.check,
    "kubernetes": kubernetes.check,
    "prometheus": prometheus.check,
    "systemd": systemd.check,
}


def findings(kind: str, deploy: Path = DEPLOY) -> list[str]:
    """What is wrong with the files of a kind; that they can't be checked is one such thing."""
    try:
        return list(KINDS[kind](deploy))
    except MissingToolError as error:
        return [f"can't be checked: {error}"]


def main(kinds: list[str]) -> int:
    """Check these kinds, or all."""
    if unknown := sorted(set(kinds) - set(KINDS)):
        print(f"there is no check of {', '.join(unknown)}, but of {', '.join(KINDS)}", file=sys.stderr)
        return 2
    wrong = 0
    for kind in kinds or KINDS:
        found = findings(kind)
        wrong += len(found)
        for finding in found or ["ok"]:
            print(f"{kind}: {finding}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

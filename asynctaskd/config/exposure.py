"""Files that hold secrets and that everybody on this machine may read.

A group may read them: that is how Kubernetes, with an fsGroup, and systemd hand them to who needs them.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asynctaskd.config.values import IN_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctaskd.config.daemon import DaemonConfig

REMEDY = "chmod o-rwx; in Kubernetes, `defaultMode: 0440` of the volume, with an fsGroup"


@dataclass(frozen=True, slots=True)
class Exposed:
    """A file that everybody may read.

    Attributes:
        key: the setting that names it.
        mode: its permissions, those of the file itself where a link leads to it.
    """

    key: str
    path: Path
    mode: int

    def __str__(self) -> str:
        return f"{self.path} of {self.key} (mode {self.mode:04o})"


def exposed_files(config: DaemonConfig) -> list[Exposed]:
    """Those that everybody may read; one that isn't there is told by whoever wants to read it."""
    found: list[Exposed] = []
    for key, path in _secret_files(config):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if mode & stat.S_IROTH:
            found.append(Exposed(key, path, mode))
    return found


def _secret_files(config: DaemonConfig) -> Iterator[tuple[str, Path]]:
    for name in ("url", "listen_url"):
        url = getattr(config.database, name)
        if url is not None and (text := url.get_secret_value()).startswith(IN_FILE):
            yield f"database.{name}", Path(text.removeprefix(IN_FILE))
    if config.dashboard.token_file is not None:
        yield "dashboard.token_file", config.dashboard.token_file

"""Takes the pictures of docs/how-to/dashboard.md: `make screenshots`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

IMAGES = Path(__file__).parent.parent.parent / "docs" / "images"
PICTURES = {
    "overview": ("/", {"theme": "light", "width": 1280, "height": 860}),
    "overview-dark": ("/", {"theme": "dark", "width": 1280, "height": 860}),
    "task": ("/tasks/902653", {"theme": "light", "width": 1280, "height": 760}),
    "groups": ("/groups", {"theme": "dark", "width": 1280, "height": 760}),
    "phone": ("/", {"theme": "light", "width": 390, "height": 844}),
}


def test_pictures(open_tab: Any, url: str) -> None:
    """Collected only where it is named: it writes into docs/."""
    for name, (path, options) in PICTURES.items():
        tab = open_tab(**options)
        tab.go(f"{url}{path}")
        tab.picture(IMAGES / f"dashboard-{name}.png")

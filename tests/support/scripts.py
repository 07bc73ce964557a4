"""Files of SQL that a test's database is given beside its migrations."""

from __future__ import annotations

from pathlib import Path

INVARIANTS = Path(__file__).with_name("invariants.sql").read_text(encoding="utf8")
"""What holds for every live task, checked by the database itself."""

"""awa's jobs: it takes their kind from the name of the class."""

from dataclasses import dataclass


@dataclass
class Noop:
    """Does nothing."""

    user_id: int
    template_id: str


@dataclass
class Stamp:
    """Notes its start."""

    sent_at: float

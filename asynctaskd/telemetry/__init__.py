"""What happened? The stations emit events; logs, metrics and traces subscribe."""

from asynctaskd.telemetry.events import Subscriber, attach, emit, is_watched

__all__ = ["Subscriber", "attach", "emit", "is_watched"]

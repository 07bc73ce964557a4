"""What an App declares of labels: limits, written down where nobody has set any, and a retry policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from asynctaskd.config.runtime import RuntimeConfig
from asynctaskd.definitions import rules
from asynctaskd.durations import format_duration
from asynctaskd.errors import InvalidDefinitionError, InvalidInputError
from asynctaskd.scheduling.retry import RetryPolicy


class LabelPolicies:
    """The declared labels, by name."""

    def __init__(self) -> None:
        self._limits: dict[str, dict[str, Any]] = {}
        self._retries: dict[str, RetryPolicy] = {}

    def declare(
        self, label: str, limits: Mapping[str, int | str | timedelta | None], retry: RetryPolicy | str | None
    ) -> None:
        """Add a label. Its limits are by the fields of the runtime configuration; None is none.

        Raises:
            InvalidDefinitionError: it is declared already, or a value breaks a rule.
        """
        if label in self._limits:
            raise InvalidDefinitionError(f"label {label!r} is declared twice")
        given = {field: _written(limit) for field, limit in limits.items() if limit is not None}
        try:
            rules.name("a label", label)
            for field, limit in given.items():
                RuntimeConfig().updated({field: {label: limit}})
            if retry is not None:
                self._retries[label] = rules.retry("retry", retry)
        except InvalidInputError as error:
            raise InvalidDefinitionError(f"label {label!r}: {error}") from None
        self._limits[label] = given

    def declared(self) -> dict[str, dict[str, Any]]:
        """Field of the runtime configuration → label → limit."""
        fields: dict[str, dict[str, Any]] = {}
        for label, limits in self._limits.items():
            for field, limit in limits.items():
                fields.setdefault(field, {})[label] = limit
        return fields

    def retry_of(self, labels: Iterable[str]) -> RetryPolicy | None:
        """The retry policy of the first of these labels, in their order, that has one."""
        return next((self._retries[label] for label in labels if label in self._retries), None)


def _written(limit: int | str | timedelta) -> int | str:
    return format_duration(limit) if isinstance(limit, timedelta) else limit

"""What the database is told of a schedule: the params of its tasks, checked, and their options."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from asynctaskd.definitions.payload import dump_payload
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from asynctaskd.definitions.cron import Cron
    from asynctaskd.definitions.definition import Definition
    from asynctaskd.definitions.options import TaskOptions


def checked_params(definition: Definition[..., Any] | None, params: object, cron: Cron) -> str:
    """Params as JSON text; with a slot's date they have to fit the definition, where it is known.

    Raises:
        InvalidPayloadError: they don't, or can't be stored.
    """
    written = dump_payload({} if params is None else params)
    if definition is not None:
        [slot, *_] = [*cron.preview(count=1), None]
        if slot is not None:
            definition.dump(definition.at_slot(json.loads(written), slot.at))
    return written


def written_options(options: TaskOptions) -> dict[str, Any]:
    """The options of a schedule's tasks, as the database keeps them; those not given are left out.

    Raises:
        InvalidInputError: the deadline is an instant.
    """
    if options.deadline is not None and not isinstance(options.deadline, timedelta):
        raise InvalidInputError("the deadline of a schedule's tasks must be a duration from their slot on")
    return options.as_json()

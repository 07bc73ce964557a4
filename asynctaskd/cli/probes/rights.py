"""What to do where this login may not look: never a right that would undo what a role is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.postgres.roles import has_roles

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal

    from asynctaskd.cli.probes.ground import Ground

    Part = Literal["viewer", "worker"]

# Who may look at least at what those before them may.
_ONLOOKERS = ("viewer", "operator", "worker")


async def parts_of(ground: Ground) -> list[str]:
    """What the login is made for: the roles of `migrate --roles` that it is a member of."""
    return [row[0] for row in await ground.ask("check_parts")]


async def way_to_look(ground: Ground, least: Part, grants: Iterable[str] = ()) -> str:
    """The remedy of a look that was refused.

    Args:
        ground: where it was refused.
        least: the first of the roles that may look.
        grants: what it takes beside USAGE of the schema where no roles were made, as GRANT has it.
    """
    if parts := await parts_of(ground):
        return f"normal for {_in_words(parts, 'and')}: {_logins(least, parts)} tells"
    schema, role = ground.schema, ground.server.role
    if await has_roles(ground.connection, schema):
        return f"GRANT {schema}_{least} TO {role}"
    [(may_use,)] = await ground.ask("check_usage", schema)
    missing = [*([] if may_use else [f"USAGE ON SCHEMA {schema}"]), *grants]
    by_hand = "; ".join(f"GRANT {grant} TO {role}" for grant in missing)
    return by_hand or f"`asynctaskd migrate --roles`, then GRANT {schema}_{least} TO {role}"


async def way_to_see_all(ground: Ground) -> str:
    """The remedy where others' sessions aren't seen. Statements may quote payloads, so it isn't for all."""
    parts, right = await parts_of(ground), "pg_read_all_stats"
    if parts and not {"worker", "operator"} & set(parts):
        return f"a login with {right} (or pg_monitor) sees since when others' transactions are open"
    return (
        f"GRANT {right} TO {ground.server.role} (or pg_monitor), to see since when others' transactions are "
        "open"
    )


def _logins(least: str, but: Iterable[str]) -> str:
    others = [part for part in _ONLOOKERS[_ONLOOKERS.index(least) :] if part not in but]
    return f"the login of {_in_words([*others, 'owner'], 'or')}"


def _in_words(parts: list[str], joined_by: str) -> str:
    *first, last = (_ONE.get(part, f"a {part}") for part in parts)
    return f"{', '.join(first)} {joined_by} {last}" if first else last


_ONE = {"enqueuer": "an enqueuer", "operator": "an operator", "owner": "the schema's owner"}

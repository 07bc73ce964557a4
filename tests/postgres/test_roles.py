"""Roles: what each may do and what it may not, asked of a real server by real logins."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from asynctaskd import Client
from asynctaskd.control.looking import LOOKS
from asynctaskd.postgres.driver import query
from asynctaskd.postgres.roles import PARTS, role_for
from tests.support.divided import STRANGER, Divided, divided_or_skipped

if TYPE_CHECKING:
    from asyncpg import Connection, Record

EVERYBODY = "owner worker enqueuer operator viewer stranger"

ENQUEUE = "owner worker enqueuer operator"
STEER = "owner worker operator"
LOOK = "owner worker operator viewer"
READ = "owner worker operator"  # what tasks carry
WRITE = "owner worker"
OWN = "owner"

# A statement each, written for the schema `asynctaskd`, and who may: everybody else is denied.
MATRIX = {
    # The functions that enqueue, each way in.
    "SELECT asynctaskd.enqueue('a')": ENQUEUE,
    "SELECT asynctaskd.enqueue('a', '{}', unique_tag => 'u', serial_key => 'k', priority => 3)": ENQUEUE,
    "SELECT asynctaskd.enqueue('a', parent_id => 1)": ENQUEUE,
    "SELECT asynctaskd.enqueue('a', depends_on => '{1}')": ENQUEUE,
    "SELECT asynctaskd.enqueue('a', depends_on => '{2}')": ENQUEUE,
    "SELECT asynctaskd.enqueue('a', cron => '@hourly')": ENQUEUE,
    "SELECT asynctaskd.enqueue(target => 'a', method => 'b', idempotence_token => 't')": ENQUEUE,
    "SELECT asynctaskd.enqueue_many('{a,b}', ARRAY['{}', '{}']::jsonb[])": ENQUEUE,
    "SELECT asynctaskd.enqueue_many('{a}', ARRAY['{}']::jsonb[], "
    "options => ARRAY['{\"parent_id\": 1}']::jsonb[])"
        : ENQUEUE,
    "SELECT asynctaskd.enqueue_written('{a}', ARRAY['{}']::jsonb[], '{\"[{}]\"}', NULL, NULL, NULL, NULL)"
        : ENQUEUE,
    "SELECT asynctaskd.schedule_by_enqueue('a', '{}', '@hourly', '{}')": ENQUEUE,
    # What only looks like enqueuing.
    "SELECT asynctaskd.enqueue('nightly', cron => '@hourly')": STEER,
    "SELECT asynctaskd.enqueue('updateWorkerRuntimeConfig', '{\"default_weight\": 2}')": STEER,
    "SELECT asynctaskd.enqueue_many('{updateWorkerRuntimeConfig}', ARRAY['{\"default_weight\": 2}']::jsonb[])"
        : STEER,
    "SELECT asynctaskd.schedule_by_enqueue('updateWorkerRuntimeConfig', '{}', '@hourly', '{}')": STEER,
    "SELECT asynctaskd.enqueue_in_turn('{a}', ARRAY['{}']::jsonb[], NULL, NULL, NULL, NULL)": WRITE,
    "SELECT asynctaskd.enqueue_failure_task(1, 'a', '{}')": WRITE,
    # Steering.
    "SELECT asynctaskd.command('cancel', '{\"ids\": [1]}')": STEER,
    "SELECT asynctaskd.command('pause', '{\"name\": \"a\"}')": STEER,
    "SELECT asynctaskd.command('retry', '{\"ids\": [2]}')": STEER,
    "SELECT asynctaskd.command('purge', '{\"ids\": [2]}')": STEER,
    "SELECT asynctaskd.command('fail', '{\"ids\": [1]}', detail => 'so')": STEER,
    "SELECT asynctaskd.command('run_now', '{\"ids\": [1]}')": STEER,
    "SELECT asynctaskd.reprioritize(weight => 3)": STEER,
    "SELECT asynctaskd.settle_request('00000000-0000-0000-0000-000000000000')": STEER,
    "SELECT asynctaskd.selected('{\"name\": \"a\"}', 'cancel')": STEER,
    "SELECT asynctaskd.with_descendants('{1}')": STEER,
    "SELECT asynctaskd.update_runtime_config('{\"default_weight\": 2}')": STEER,
    "SELECT asynctaskd.put_schedule('s', expression => '@hourly', task => 'a')": STEER,
    "SELECT asynctaskd.pause_schedule('nightly')": STEER,
    "SELECT asynctaskd.resume_schedule('nightly')": STEER,
    "SELECT asynctaskd.remove_schedule('nightly')": STEER,
    "SELECT asynctaskd.run_schedule('nightly')": STEER,
    "SELECT asynctaskd.note_audit('ada', NULL, 'cancel', '{}', NULL, NULL, 'done')": STEER,
    # What tasks carry.
    "SELECT payload FROM asynctaskd.tasks": READ,
    "SELECT result FROM asynctaskd.finished_tasks": READ,
    "SELECT * FROM asynctaskd.all_tasks": READ,
    "SELECT detail FROM asynctaskd.task_events": READ,
    "SELECT params FROM asynctaskd.schedules": READ,
    "SELECT tag FROM asynctaskd.unique_tags": READ,
    # What there is beside.
    "SELECT * FROM asynctaskd.task_list": LOOK,
    "SELECT * FROM asynctaskd.event_list": LOOK,
    "SELECT * FROM asynctaskd.schedule_list": LOOK,
    "SELECT * FROM asynctaskd.notices": LOOK,
    "SELECT * FROM asynctaskd.audit": LOOK,
    "SELECT * FROM asynctaskd.desired_slots": LOOK,
    "SELECT asynctaskd.search_tasks('{}', NULL, 10, '1 s')": LOOK,
    "SELECT asynctaskd.count_tasks(10)": LOOK,
    "SELECT asynctaskd.pulse('5 minutes', 10, '{}')": LOOK,
    "SELECT asynctaskd.relatives(1, 10, 100)": LOOK,
    "SELECT asynctaskd.percent_of(1)": LOOK,
    "SELECT *, asynctaskd.is_live(w) FROM asynctaskd.workers AS w": LOOK,
    "SELECT * FROM asynctaskd.runtime_configs": LOOK,
    "SELECT * FROM asynctaskd.commands JOIN asynctaskd.receipts USING (request_id)": LOOK,
    "SELECT * FROM asynctaskd.schedule_slots": LOOK,
    "SELECT * FROM asynctaskd.definitions": LOOK,
    "SELECT * FROM asynctaskd.label_permits, asynctaskd.dependencies, asynctaskd.claims_told": LOOK,
    "SELECT max(number) FROM asynctaskd.migrations": LOOK,
    "SELECT asynctaskd.overview()": LOOK,
    "SELECT * FROM asynctaskd.why(1)": LOOK,
    "SELECT * FROM asynctaskd.new_tasks(0, 10, '{}')": LOOK,
    "SELECT * FROM asynctaskd.new_events(0, 10, '{}')": LOOK,
    "SELECT asynctaskd.watch('00000000-0000-0000-0000-000000000001', 'events', '10 s')": LOOK,
    "SELECT asynctaskd.watch('00000000-0000-0000-0000-000000000001', 'events', '0 s')": LOOK,
    "SELECT id FROM asynctaskd.watchers": WRITE,
    "DELETE FROM asynctaskd.watchers": WRITE,
    # Rows are a worker's.
    "INSERT INTO asynctaskd.tasks (status, name, payload) VALUES ('pending', 'a', '{}')": WRITE,
    "UPDATE asynctaskd.tasks SET priority = 9": WRITE,
    "DELETE FROM asynctaskd.tasks": WRITE,
    "DELETE FROM asynctaskd.finished_tasks": WRITE,
    "DELETE FROM asynctaskd.task_events": WRITE,
    "UPDATE asynctaskd.unique_tags SET task_id = 1": WRITE,
    "UPDATE asynctaskd.workers SET labels = '{}'": WRITE,
    "DELETE FROM asynctaskd.runtime_configs": WRITE,
    "UPDATE asynctaskd.definitions SET priority = 1": WRITE,
    "UPDATE asynctaskd.schedules SET params = '{}'": WRITE,
    "DELETE FROM asynctaskd.commands": WRITE,
    "SELECT nextval('asynctaskd.task_ids')": WRITE,
    "SELECT asynctaskd.publish_runtime_config('{\"default_weight\": 2}', gen_random_uuid(), 'me')": WRITE,
    "SELECT asynctaskd.finish('{1}', 'cancelled', 'so')": WRITE,
    "SELECT asynctaskd.ensure_finished_partition('2031-01-01')": WRITE,
    "SELECT asynctaskd.detach_finished_partition('finished_tasks_20200101')": WRITE,
    "SELECT asynctaskd.drop_detached('finished_tasks_20200101')": WRITE,
    # Tables are the owner's, and so is what functions say.
    "CREATE TABLE asynctaskd.mine (n integer)": OWN,
    "ALTER TABLE asynctaskd.tasks ADD COLUMN mine integer": OWN,
    "DROP TABLE asynctaskd.claims_told": OWN,
    "TRUNCATE asynctaskd.task_events": OWN,
    "CREATE FUNCTION asynctaskd.mine() RETURNS integer LANGUAGE sql RETURN 1": OWN,
    "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz LANGUAGE sql RETURN now()": OWN,
    "ALTER TABLE asynctaskd.finished_tasks DETACH PARTITION asynctaskd.finished_tasks_20200101": OWN,
    "DROP TABLE asynctaskd.finished_tasks_20200101": OWN,
    "CREATE INDEX ON asynctaskd.tasks (name)": OWN,
    "CREATE TRIGGER mine AFTER INSERT ON asynctaskd.tasks "
    "EXECUTE FUNCTION asynctaskd.check_runtime_config()": OWN,
    "INSERT INTO asynctaskd.migrations (number, name, major, minor) VALUES (99, 'mine', 9, 9)": OWN,
    "COMMENT ON TABLE asynctaskd.tasks IS 'mine'": OWN,
    # Nobody keeps anybody from sending a notice, and nobody has to: they only hurry.
    "NOTIFY asynctaskd_ready": EVERYBODY,
    "LISTEN asynctaskd_ready": EVERYBODY,
}  # fmt: skip

# Task 1 is live and has failed once, task 2 has failed for good; with events, a schedule, an old partition.
SECRET = "4012-8888"
THERE_IS = f"""
    SELECT asynctaskd.ensure_finished_partition('2020-01-01'), asynctaskd.ensure_finished_partition(d::date)
    FROM generate_series(now(), now() + '9 days', '1 day') AS d;
    SELECT asynctaskd.enqueue('a', '{{"card": "{SECRET}"}}', unique_tag => 't',
                              metadata => '{{"of": "{SECRET}"}}');
    SELECT asynctaskd.enqueue('a', '{{"card": "{SECRET}"}}');
    UPDATE asynctaskd.tasks SET failures = 1, reason = 'ValueError', last_error = 'bad card {SECRET}',
           progress = '{{"percent": 1, "message": "{SECRET}"}}', status = 'scheduled', run_at = now() + '1 h';
    SELECT asynctaskd.finish('{{2}}', 'failed', 'ValueError', 'bad card {SECRET}');
    UPDATE asynctaskd.finished_tasks SET result = '"{SECRET}"';
    INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail)
    VALUES (1, 1, 'retried', '{{"error": "bad card {SECRET}", "reason": "ValueError"}}');
    SELECT asynctaskd.put_schedule('nightly', expression => '@daily', task => 'a',
                                   params => '{{"card": "{SECRET}"}}',
                                   options => '{{"metadata": {{"of": "{SECRET}"}}}}');
"""

Roles = dict[str, "Connection[Record]"]


@pytest.fixture(scope="module")
def divided(dsn: str) -> Iterator[Divided]:
    with divided_or_skipped(dsn) as made:
        yield made


@pytest.fixture
async def roles(divided: Divided) -> AsyncIterator[Roles]:
    """A connection of each role's; the owner's is that of somebody who acts as the owner."""
    async with AsyncExitStack() as stack:
        opened: Roles = {}
        for part in (*PARTS, STRANGER):
            connection = await asyncpg.connect(divided.logins.get(part, divided.admin))
            stack.push_async_callback(connection.close)
            opened[part] = connection
        await opened["owner"].execute(f"SET ROLE {divided.schema}_owner")
        if not await opened["owner"].fetchval(divided.sql("SELECT EXISTS (SELECT FROM asynctaskd.tasks)")):
            await opened["owner"].execute(divided.sql(THERE_IS))
        yield opened


async def is_allowed(connection: Connection[Record], statement: str) -> bool:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return False
    finally:
        await transaction.rollback()
    return True


@pytest.mark.parametrize("statement", MATRIX)
async def test_each_role_may_do_its_part_and_no_more(divided: Divided, roles: Roles, statement: str) -> None:
    asked = divided.sql(statement)
    found = [part for part, connection in roles.items() if await is_allowed(connection, asked)]
    assert " ".join(found) == MATRIX[statement]


def test_the_matrix_is_large_enough_to_mean_something() -> None:
    assert len(MATRIX) * len(EVERYBODY.split()) >= 60


async def test_an_enqueuer_changes_the_schedules_that_were_enqueued(divided: Divided, roles: Roles) -> None:
    promised = [
        await roles["enqueuer"].fetchval(divided.sql(f"SELECT asynctaskd.enqueue('hers', cron => '{cron}')"))
        for cron in ("@hourly", "@daily")
    ]
    assert promised[0] == promised[1], "the same schedule was changed, whose next task has an id already"


async def test_nothing_that_a_viewer_gets_holds_what_tasks_carry(divided: Divided, roles: Roles) -> None:
    shown = [statement for statement, parts in MATRIX.items() if "viewer" in parts and "SELECT" in statement]
    for statement in shown:
        rows = await roles["viewer"].fetch(divided.sql(statement))
        assert SECRET not in repr(rows), statement
    told = await roles["operator"].fetch(divided.sql("SELECT * FROM asynctaskd.why(2)"))
    assert SECRET in repr(told)


async def test_a_viewer_watches_for_as_long_as_it_likes(divided: Divided, roles: Roles) -> None:
    watched = divided.sql("SELECT count(*) FROM asynctaskd.watchers WHERE expires_at > clock_timestamp()")
    overviews = Client(roles["viewer"], schema=divided.schema).follow("20ms")
    await anext(overviews)
    assert await roles["worker"].fetchval(watched) == 1
    await overviews.aclose()
    assert await roles["worker"].fetchval(watched) == 0


async def test_a_viewer_is_told_the_same_without_what_tasks_carry(divided: Divided, roles: Roles) -> None:
    asked = {
        "get_tasks": ([1, 2],),
        "list_tasks": (None, None, None, 9),
        "list_events": (1,),
        "list_schedules": (None,),
    }
    for name, arguments in asked.items():
        whole = await roles["operator"].fetch(query(name, divided.schema), *arguments)
        look = await roles["viewer"].fetch(query(LOOKS[name], divided.schema), *arguments)
        assert SECRET in repr(whole)
        assert SECRET not in repr(look)
        assert len(look) == len(whole) > 0
        for shown, row in zip(sorted(look), sorted(whole), strict=True):
            assert list(shown.keys()) == list(row.keys())
            said = {key for key, value in row.items() if key != "now" and shown[key] != value}
            assert said <= {
                "payload",
                "result",
                "last_error",
                "progress",
                "metadata",
                "detail",
                "params",
                "options",
            }


# What is called by the functions that are granted, and by workers.
INTERNAL = set(
    """
    abandon add_dependencies announce ask_workers at_rest awaited_of because born_as can_write canary_of
    canary_problem cancel_dependants check_runtime_config close_receipts config_in_force count_ended
    count_live cron_problem ended_lately expected first_task_since fitting is_by_end next_stretch
    ready_label_sets decide_slots declare_labels deliver depends detach_finished_partition difference
    drop_detached drop_stray_permits duration_of duration_problem durations_problem end_of end_tasks
    enqueue_failure_task enqueue_in_turn enqueue_slot enqueue_together ensure_finished_partition
    entries_of exchange_permits expire expire_runtime_configs fail_now fail_tasks finish finish_each
    finished_lately forget_day forgotten_day givers goes_first has_hook instant integer_problem
    is_cancelled is_free is_name is_one_bad keep_failed label_problem label_set labels_of labels_problem
    later lock_dependants may_steer lock_root lock_runtime_configs look_again mapping_problem may_break_a_rule
    metadata_problem milliseconds names_problem newest_for_all newest_limit note_changed
    note_changed_schedule note_turns numbers_problem obey obey_pause options_problem overlap_problem
    overlooked pause_tasks paused_names payload_problem previous_runtime_config problem_of_one
    promote_line promote_lines promote_runtime_config publish_runtime_config publish_waiting_configs
    purge_tasks ready_by_label_set ready_strict refuse refuse_another_identity refuse_the_stranded
    request_problem require_readable require_steering resume_tasks retry_problem retry_tasks
    roll_back_runtime_config run_tasks running_tasks runtime_config_content runtime_config_fields
    runtime_config_form_problem runtime_config_problem said schedule_problem set_going settle
    settle_canary settle_dependencies shown slots_problem tags_of tags_problem take_unique_tag tell
    tell_put_aside tell_runtime_config tree_key who_asked why_ended why_held_back why_no_room why_nobody
    why_paused why_pending why_running why_scheduled why_waiting within_limits without_expired
    write_runtime_config
    """.split()  # noqa: SIM905
)
GRANTED = {
    "enqueuer operator": {"enqueue", "enqueue_many", "enqueue_written", "schedule_by_enqueue"},
    "operator": {
        "command", "reprioritize", "settle_request", "withdraw", "selected", "selection_problem", "fits",
        "with_descendants", "update_runtime_config", "config_request", "put_schedule", "pause_schedule",
        "resume_schedule", "remove_schedule", "run_schedule", "note_audit",
    },
    "operator viewer": {
        "overview", "why", "new_tasks", "new_events", "watch", "without_values", "may_read_values", "caller",
        "clock", "is_live", "known_version", "knows", "route_of", "search_tasks", "count_tasks", "pulse",
        "relatives", "percent_of", "count_desired_slots",
    },
    "": INTERNAL,
}  # fmt: skip

FUNCTIONS = """
    SELECT proname::text AS name, string_agg(part, ' ' ORDER BY part) AS parts
    FROM pg_proc CROSS JOIN unnest('{enqueuer,operator,viewer,worker,stranger}'::text[]) AS part
    WHERE pronamespace = $1::text::regnamespace
      AND has_function_privilege(
          $1 || CASE part WHEN 'stranger' THEN '_as_' ELSE '_' END || part, pg_proc.oid, 'EXECUTE')
    GROUP BY proname
"""


async def test_who_may_call_each_function_was_decided(divided: Divided, roles: Roles) -> None:
    found = dict(await roles["owner"].fetch(FUNCTIONS, divided.schema))
    decided = {name: f"{parts} worker".strip() for parts, names in GRANTED.items() for name in names}
    assert found == decided, "name it in rights/grant.sql, or here among what only workers call"


RELATIONS = {
    # Who may read it; who may insert, update or delete; what it is.
    "tasks": ("operator worker", "worker"),
    "finished_tasks": ("operator worker", "worker"),
    "all_tasks": ("operator worker", ""),
    "task_events": ("operator worker", "worker"),
    "unique_tags": ("operator worker", "worker"),
    "schedules": ("operator worker", "worker"),
    "trees": ("operator worker", "worker"),
    "failure_tasks": ("operator worker", "worker"),
    "retention": ("operator worker", "worker"),
    "task_list": ("operator viewer worker", ""),
    "event_list": ("operator viewer worker", ""),
    "schedule_list": ("operator viewer worker", ""),
    "notices": ("operator viewer worker", ""),
    "migrations": ("operator viewer worker", ""),
    "workers": ("operator viewer worker", "worker"),
    "definitions": ("operator viewer worker", "worker"),
    "runtime_configs": ("operator viewer worker", "worker"),
    "commands": ("operator viewer worker", "worker"),
    "receipts": ("operator viewer worker", "worker"),
    "schedule_slots": ("operator viewer worker", "worker"),
    "label_permits": ("operator viewer worker", "worker"),
    "dependencies": ("operator viewer worker", "worker"),
    "claims_told": ("operator viewer worker", "worker"),
    "watchers": ("worker", "worker"),
    "task_ids": ("operator viewer worker", "worker"),
    "task_events_id_seq": ("worker", "worker"),
    "desired_slots": ("operator viewer worker", ""),
    "audit": ("operator viewer worker", ""),
    "audit_id_seq": ("worker", "worker"),
    "notices_sent": ("worker", "worker"),
    "notices_saved": ("worker", "worker"),
}

ACCESS = """
    WITH asked AS (
        SELECT c.oid, relname, relkind, part,
               $1 || CASE part WHEN 'stranger' THEN '_as_' ELSE '_' END || part AS role
        FROM pg_class AS c CROSS JOIN unnest('{enqueuer,operator,viewer,worker,stranger}'::text[]) AS part
        WHERE relnamespace = $1::text::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'S')
          AND NOT relispartition
    ), may AS (
        SELECT *,
               CASE WHEN relkind = 'S' THEN has_sequence_privilege(role, oid, 'SELECT')
                    ELSE has_table_privilege(role, oid, 'SELECT') END AS reads,
               CASE WHEN relkind = 'S' THEN has_sequence_privilege(role, oid, 'USAGE, UPDATE')
                    ELSE has_table_privilege(role, oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
                         OR has_any_column_privilege(role, oid, 'INSERT, UPDATE') END AS writes
        FROM asked
    )
    SELECT relname::text, coalesce(string_agg(part, ' ' ORDER BY part) FILTER (WHERE reads), '') AS reads,
           coalesce(string_agg(part, ' ' ORDER BY part) FILTER (WHERE writes), '') AS writes
    FROM may GROUP BY relname
"""


async def test_who_may_read_and_write_each_table_was_decided(divided: Divided, roles: Roles) -> None:
    rows = await roles["owner"].fetch(ACCESS, divided.schema)
    found = {name: (reads, writes) for name, reads, writes in rows}
    assert found == RELATIONS, "name it in rights/grant.sql, and here"


async def test_single_columns_are_read_by_whoever_may_not_read_the_table(
    divided: Divided, roles: Roles
) -> None:
    rows = await roles["owner"].fetch(
        "SELECT attrelid::regclass::text AS table, attname::text AS column, grantee::regrole::text AS role"
        " FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid CROSS JOIN LATERAL aclexplode(attacl)"
        " WHERE relnamespace = $1::text::regnamespace",
        divided.schema,
    )
    assert [tuple(row) for row in rows] == [
        (f"{divided.schema}.task_events", "id", f"{divided.schema}_viewer")
    ]


async def test_partitions_are_for_those_alone_who_own_them(divided: Divided, roles: Roles) -> None:
    for part in ("worker", "operator"):
        assert not await is_allowed(
            roles[part], divided.sql("SELECT FROM asynctaskd.finished_tasks_20200101")
        )


STATEMENTS = sorted(path.stem for path in Path(str(files("asynctaskd.postgres"))).glob("queries/*.sql"))
CLIENTS = {
    "command", "count_open", "reprioritize", "selected", "withdraw", "update_config", "config_report",
    "get_tasks", "list_tasks", "list_events", "statuses", "open_payloads", "list_schedules", "put_schedule",
    "pause_schedule", "remove_schedule", "resume_schedule",
}  # fmt: skip
"""The statements that operators send, beside those of enqueuers and viewers."""


async def may_send(connection: Connection[Record], name: str, schema: str) -> bool:
    """Whether a statement's objects are all open to a role: it is planned and opened, and not run."""
    statement = query(name, schema)
    asked = await connection.prepare(statement)
    nothing = ", ".join(f"NULL::{one.name}" for one in asked.get_parameters())
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(f"PREPARE asked AS {statement}")
        await connection.execute(f"EXPLAIN EXECUTE asked{f'({nothing})' if nothing else ''}")
    except asyncpg.InsufficientPrivilegeError:
        return False
    finally:
        await transaction.rollback()
        await connection.execute("DEALLOCATE asked")
    return True


async def test_a_worker_may_send_every_statement_there_is(divided: Divided, roles: Roles) -> None:
    denied = [name for name in STATEMENTS if not await may_send(roles["worker"], name, divided.schema)]
    assert denied == []


async def test_each_client_may_send_the_statements_of_its_role(divided: Divided, roles: Roles) -> None:
    for name in STATEMENTS:
        part = role_for(name, divided.schema).removeprefix(f"{divided.schema}_")
        if part != "operator" or name in CLIENTS:
            for role in {part, "operator"}:
                assert await may_send(roles[role], name, divided.schema), (role, name)


async def test_what_runs_with_the_owners_rights_looks_for_names_nowhere_else(
    divided: Divided, roles: Roles
) -> None:
    rows = await roles["owner"].fetch(
        "SELECT proname, proowner::regrole::text AS owner, proconfig FROM pg_proc"
        " WHERE pronamespace = $1::text::regnamespace AND prosecdef",
        divided.schema,
    )
    assert len(rows) == 29
    for row in rows:
        assert row["owner"] == f"{divided.schema}_owner"
        assert "search_path=pg_catalog, pg_temp" in row["proconfig"], row["proname"]


async def test_an_enqueuer_cant_slip_its_own_objects_under_the_functions(
    divided: Divided, roles: Roles
) -> None:
    admin = await asyncpg.connect(divided.admin)
    try:
        await admin.execute(
            f"CREATE SCHEMA mine; GRANT CREATE ON SCHEMA mine TO {divided.schema}_as_enqueuer;"
            " GRANT USAGE ON SCHEMA mine TO PUBLIC"
        )
    finally:
        await admin.close()
    shop = roles["enqueuer"]
    await shop.execute(
        """
        SET search_path = mine, pg_temp, pg_catalog;
        CREATE FUNCTION mine.mine() RETURNS integer LANGUAGE plpgsql AS $$
            BEGIN RAISE EXCEPTION 'mine was called by %', current_user; END $$;
        CREATE FUNCTION mine.hashtext(text) RETURNS integer LANGUAGE sql AS 'SELECT mine.mine()';
        CREATE FUNCTION mine.octet_length(text) RETURNS integer LANGUAGE sql AS 'SELECT mine.mine()';
        CREATE FUNCTION mine.like(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT mine.mine() > 0';
        CREATE OPERATOR mine.~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.like);
        CREATE TEMP TABLE tasks (id bigint); CREATE TEMP TABLE pg_class (relname name);
        """
    )
    assert await shop.fetchval(
        divided.sql("SELECT asynctaskd.enqueue('route.a', '{}', unique_tag => 'one more', serial_key => 'k')")
    )
    assert await shop.fetchval(
        divided.sql(
            "SELECT cardinality(asynctaskd.enqueue_many("
            "'{a,b}', ARRAY['{}', '{}']::jsonb[], labels => '{x,y}'))"
        )
    )


async def test_a_worker_cant_have_other_tables_dropped(divided: Divided, roles: Roles) -> None:
    worker = roles["worker"]
    there = "SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace"
    before = await worker.fetchval(there, divided.schema)
    for table in ("tasks", "workers", "finished_tasks", "finished_tasks_20990101"):
        assert not await worker.fetchval(divided.sql("SELECT asynctaskd.drop_detached($1)"), table)
        await worker.execute(divided.sql(f"SELECT asynctaskd.detach_finished_partition('{table}')"))
    assert await worker.fetchval(there, divided.schema) == before


async def test_a_partition_whose_day_has_not_come_stays(divided: Divided, roles: Roles) -> None:
    count = divided.sql(
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'asynctaskd.finished_tasks'::regclass"
    )
    await roles["worker"].execute(divided.sql("SELECT asynctaskd.ensure_finished_partition('2099-01-01')"))
    before = await roles["worker"].fetchval(count)
    await roles["worker"].execute(
        divided.sql("SELECT asynctaskd.detach_finished_partition('finished_tasks_20990101')")
    )
    assert await roles["worker"].fetchval(count) == before


async def test_what_is_written_down_names_who_asked(divided: Divided, roles: Roles) -> None:
    me = f"{divided.schema}_as_operator"
    async with roles["operator"].transaction():
        version = divided.sql(
            "SELECT created_by FROM asynctaskd.runtime_configs ORDER BY version DESC LIMIT 1"
        )
        await roles["operator"].execute(
            divided.sql("SELECT asynctaskd.update_runtime_config('{\"default_weight\": 7}')")
        )
        assert await roles["operator"].fetchval(version) == me
        asked = await roles["operator"].fetchval(
            divided.sql("SELECT asynctaskd.command('pause', '{\"name\": \"none\"}')")
        )
        assert me == await roles["operator"].fetchval(
            divided.sql("SELECT requested_by FROM asynctaskd.commands WHERE request_id = $1"), asked
        )


async def test_whoever_takes_on_another_role_is_that_role(divided: Divided, roles: Roles) -> None:
    """A login of two parts that has taken on one of them has no more than that one."""
    admin = await asyncpg.connect(divided.admin)
    both = f"{divided.schema}_as_operator"
    try:
        await admin.execute(f"GRANT {divided.schema}_enqueuer TO {both}")
        await roles["operator"].execute(f"SET ROLE {divided.schema}_enqueuer")
        steer = divided.sql(
            "SELECT asynctaskd.enqueue('updateWorkerRuntimeConfig', '{\"default_weight\": 2}')"
        )
        assert not await is_allowed(roles["operator"], steer)
        await roles["operator"].execute("RESET ROLE")
        assert await is_allowed(roles["operator"], steer)
    finally:
        await admin.execute(f"REVOKE {divided.schema}_enqueuer FROM {both}")
        await admin.close()

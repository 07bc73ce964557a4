-- schema 1.17
--
-- What it takes to give each role its part and no more: `asynctaskd migrate --roles` makes the roles. Nothing below gives
-- or takes rights by itself.

-- Whose call this is: the role that the session has taken on, also within a function that runs with its owner's rights.
CREATE FUNCTION asynctaskd.caller() RETURNS name
LANGUAGE sql STABLE
RETURN coalesce(nullif(current_setting('role'), 'none')::name, session_user);

-- Whether the caller may read what tasks carry: payloads, results, and errors, whose texts may quote them.
CREATE FUNCTION asynctaskd.may_read_values() RETURNS boolean
LANGUAGE sql STABLE
RETURN has_table_privilege(asynctaskd.caller(), 'asynctaskd.tasks', 'SELECT');


-- What whoever may not read values can see.

CREATE VIEW asynctaskd.task_list AS
SELECT id, name, status, priority, weight, string_to_array(label_set, ',') AS labels, tags, unique_tag, serial_key,
       serial_id, parent_id, depends_on, run_at, deadline, timeout, attempts, losses, max_attempts, worker_id,
       claim_token, claimed_at, NULL::timestamptz AS finished_at, created_at, reason
FROM asynctaskd.tasks
UNION ALL
SELECT id, name, status, priority, weight, string_to_array(label_set, ','), tags, unique_tag, serial_key,
       serial_id, parent_id, depends_on, run_at, deadline, timeout, attempts, losses, max_attempts, worker_id,
       claim_token, claimed_at, finished_at, created_at, reason
FROM asynctaskd.finished_tasks;

-- What the detail of an event says beside values. These keys and no others: what comes later has to be looked at first.
CREATE FUNCTION asynctaskd.without_values(detail jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT jsonb_object_agg(key, value) FROM jsonb_each(detail)
        WHERE key IN ('reason', 'delay', 'losses', 'worker_id', 'cause', 'status', 'priority', 'weight', 'request_id'));

CREATE VIEW asynctaskd.event_list AS
SELECT id, task_id, claim_token, claimed_at, at, kind, asynctaskd.without_values(detail) AS detail
FROM asynctaskd.task_events;

CREATE VIEW asynctaskd.schedule_list AS
SELECT name, task, expression, zone, missed, missed_limit, overlap, declared_hash IS NOT NULL AS declared,
       declared_hash IS NULL OR EXISTS (
           SELECT FROM asynctaskd.workers AS w WHERE w.process = ANY (declared_by) AND asynctaskd.is_live(w)
       ) AS tended,
       paused_at, paused_because, since, nullif(next_at, 'infinity') AS next_at, last_slot, last_task, created_at,
       updated_at
FROM asynctaskd.schedules;

CREATE OR REPLACE FUNCTION asynctaskd.why_ended(task bigint) RETURNS asynctaskd.reason
LANGUAGE sql STABLE
RETURN (SELECT asynctaskd.because(
    status, format('it has ended: %s at %s%s', status, asynctaskd.instant(finished_at),
                   coalesce(': ' || nullif(concat_ws(', ', reason, error), ''), '')),
    CASE WHEN status <> 'completed' THEN format('asynctaskd tasks retry %s runs it again', id) END,
    jsonb_strip_nulls(jsonb_build_object('finished_at', finished_at, 'reason', reason, 'last_error', error)))
    FROM (SELECT *, CASE WHEN asynctaskd.may_read_values() THEN last_error END AS error
          FROM asynctaskd.finished_tasks WHERE id = task LIMIT 1) AS ended);

CREATE OR REPLACE FUNCTION asynctaskd.why_scheduled(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
DECLARE
    until text := asynctaskd.instant(t.run_at);
    detail jsonb := jsonb_build_object('run_at', t.run_at);
    knowing bigint;
BEGIN
    IF t.reason = 'unknown_name' THEN
        SELECT count(*) INTO knowing FROM asynctaskd.workers AS w
        WHERE asynctaskd.is_live(w) AND asynctaskd.knows(w.names, t.name) AND string_to_array(t.label_set, ',') <@ w.labels;
        IF knowing > 0 THEN
            RETURN asynctaskd.because(
                'unknown_name', format('the worker that took it doesn''t know the name %s, which %s of those that may run '
                                       'it know; it is tried again at %s', t.name, knowing, until),
                format('asynctaskd tasks run-now %s has one of these run it at once', t.id),
                detail || jsonb_build_object('name', t.name));
        END IF;
        RETURN asynctaskd.because(
            'unknown_name', format('no worker that took it knows the name %s; it is tried again at %s', t.name, until),
            'start a worker whose App declares that name', detail || jsonb_build_object('name', t.name));
    ELSIF t.failures > 0 AND t.reason IS NOT NULL THEN
        RETURN asynctaskd.because(
            'retry', format('its execution %s failed (%s) and it is tried again at %s', t.failures, concat_ws(
                                ': ', t.reason, CASE WHEN asynctaskd.may_read_values() THEN left(t.last_error, 200) END),
                            until),
            format('asynctaskd tasks run-now %s doesn''t wait', t.id), detail || jsonb_build_object('reason', t.reason));
    END IF;
    RETURN asynctaskd.because('scheduled', format('it waits until %s', until),
                              format('asynctaskd tasks run-now %s doesn''t wait', t.id), detail);
END $$;

CREATE OR REPLACE FUNCTION asynctaskd.new_events(after bigint, most integer, passed_over bigint[])
RETURNS TABLE (id bigint, kind text, task_id bigint, at timestamptz, detail jsonb, name text, labels text[])
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    shows_values boolean := asynctaskd.may_read_values();
BEGIN
    RETURN QUERY
    SELECT e.id, e.kind, e.task_id, e.at,
           CASE WHEN shows_values THEN e.detail ELSE asynctaskd.without_values(e.detail) END, t.name, t.labels
    FROM (
        (SELECT * FROM asynctaskd.task_events AS n WHERE n.id > after ORDER BY n.id DESC LIMIT most)
        UNION ALL
        SELECT * FROM asynctaskd.task_events AS p WHERE p.id = ANY (passed_over)
    ) AS e LEFT JOIN LATERAL (
        SELECT a.name, a.labels FROM asynctaskd.all_tasks AS a WHERE a.id = e.task_id LIMIT 1
    ) AS t ON true;
END $$;


-- What enqueuing must not become: a way to steer the fleet.

-- Whether the caller may change the runtime configuration, whatever function with other rights it came through.
CREATE FUNCTION asynctaskd.may_steer() RETURNS boolean
LANGUAGE sql STABLE
RETURN has_function_privilege(asynctaskd.caller(), 'asynctaskd.update_runtime_config(jsonb, interval)', 'EXECUTE');

CREATE FUNCTION asynctaskd.require_steering() RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF NOT asynctaskd.may_steer() THEN
        RAISE EXCEPTION 'permission denied for function update_runtime_config' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION asynctaskd.update_runtime_config(changes jsonb, timeout interval DEFAULT '30 s') RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    problem text := asynctaskd.runtime_config_problem(changes);
    now_is timestamptz := asynctaskd.clock();
    keep constant interval := '7 days';
    new_id bigint;
    written bigint;
BEGIN
    PERFORM asynctaskd.require_steering();
    IF problem IS NULL AND (timeout <= interval '0' OR timeout > interval '36525 days') IS NOT FALSE THEN
        problem := format('timeout must be more than 0 and at most 36525 days, got %s', timeout);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    new_id := nextval('asynctaskd.task_ids');
    IF EXISTS (SELECT FROM asynctaskd.workers WHERE asynctaskd.is_live(workers)) THEN
        INSERT INTO asynctaskd.tasks (id, created_at, status, name, label_set, priority, timeout, payload, metadata)
        VALUES (new_id, now_is, 'pending', 'updateWorkerRuntimeConfig', '!control', 2147483647,
                timeout + coalesce(asynctaskd.duration_of(changes ->> 'canary'), '0'), changes,
                jsonb_build_object('created_by', asynctaskd.caller()));
        PERFORM pg_notify('asynctaskd_ready', '!control');
        RETURN new_id;
    END IF;
    PERFORM asynctaskd.publish_waiting_configs();
    written := (asynctaskd.publish_runtime_config(changes, asynctaskd.config_request(new_id))).version;
    PERFORM asynctaskd.ensure_finished_partition(asynctaskd.forget_day(now_is, keep));
    INSERT INTO asynctaskd.finished_tasks (
        id, claim_token, created_at, finished_at, forget_on, priority, weight, attempts, failures, losses, timeout,
        status, name, label_set, tags, depends_on, payload, result)
    VALUES (new_id, 0, now_is, now_is, asynctaskd.forget_day(now_is, keep), 2147483647, 1, 0, 0, 0, timeout,
            'completed', 'updateWorkerRuntimeConfig', '!control', '{}', '{}', changes,
            jsonb_build_object('version', written, 'status', 'converged', 'applied', '[]'::jsonb,
                               'lagging', '[]'::jsonb, 'rejected', '{}'::jsonb));
    RETURN new_id;
END $$;

-- Whether it was made by the option `cron` of an enqueue: who may only enqueue may change no other schedule.
ALTER TABLE asynctaskd.schedules ADD COLUMN by_enqueue boolean;

CREATE OR REPLACE FUNCTION asynctaskd.schedule_by_enqueue(name text, payload jsonb, cron text, settings jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    given jsonb := asynctaskd.said(coalesce(settings, '{}'));
    reserved bigint;
    was_enqueued boolean;  -- NULL: it is new
    problem text := coalesce(asynctaskd.cron_problem(cron), asynctaskd.slots_problem(given));
BEGIN
    IF name = 'updateWorkerRuntimeConfig' THEN
        PERFORM asynctaskd.require_steering();
    END IF;
    SELECT t.by_enqueue IS TRUE INTO was_enqueued FROM asynctaskd.schedules AS t
    WHERE t.name = schedule_by_enqueue.name FOR UPDATE;
    IF NOT was_enqueued AND NOT asynctaskd.may_steer() THEN
        RAISE EXCEPTION 'permission denied for schedule %', name
            USING ERRCODE = 'insufficient_privilege', HINT = 'an App declares it or an operator made it: they change it';
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    PERFORM asynctaskd.put_schedule(
        schedule_by_enqueue.name, NULL, schedule_by_enqueue.name, cron, given ->> 'zone', payload,
        given - '{zone,missed,missed_limit,overlap}'::text[], given ->> 'missed',
        (given ->> 'missed_limit')::integer, given ->> 'overlap');
    UPDATE asynctaskd.schedules AS t
    SET reserved_task = coalesce(t.reserved_task, nextval('asynctaskd.task_ids')),
        by_enqueue = coalesce(was_enqueued, true)
    WHERE t.name = schedule_by_enqueue.name RETURNING t.reserved_task INTO reserved;
    RETURN reserved;
END $$;

-- As before, but for the author, who is the caller.
CREATE OR REPLACE FUNCTION asynctaskd.write_runtime_config(
    content jsonb, changes jsonb, base bigint, request uuid DEFAULT NULL, author text DEFAULT NULL,
    expires interval DEFAULT NULL, canary interval DEFAULT NULL, canary_id uuid DEFAULT NULL,
    takes_back bigint DEFAULT NULL
) RETURNS asynctaskd.runtime_configs
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    written asynctaskd.runtime_configs;
BEGIN
    UPDATE asynctaskd.runtime_configs SET reach = 'nobody' WHERE reach = 'canary';
    INSERT INTO asynctaskd.runtime_configs (
        version, max_strict_percentage, default_weight, weights, limits, max_run_times, max_attempts, paused_labels,
        paused_names, created_at, request_id, created_by, based_on, changes, expires_at, takes_back, reach, canary_worker, canary_until,
        canary_base)
    SELECT coalesce(max(version), 0) + 1, (content ->> 'max_strict_percentage')::integer,
           (content ->> 'default_weight')::integer, content -> 'weights', content -> 'limits',
           content -> 'max_run_times', content -> 'max_attempts',
           ARRAY(SELECT jsonb_array_elements_text(content -> 'paused_labels')),
           ARRAY(SELECT jsonb_array_elements_text(content -> 'paused_names')), now_is,
           request, coalesce(author, asynctaskd.caller()), base, write_runtime_config.changes,
           asynctaskd.later(now_is, expires), write_runtime_config.takes_back,
           CASE WHEN canary_id IS NULL THEN 'all' ELSE 'canary' END, canary_id,
           asynctaskd.later(now_is, canary),
           CASE WHEN canary_id IS NOT NULL THEN (
               SELECT jsonb_object_agg(id, jsonb_build_array(finished, failed))
               FROM asynctaskd.workers WHERE asynctaskd.is_live(workers)) END
    FROM asynctaskd.runtime_configs
    RETURNING * INTO written;
    PERFORM asynctaskd.tell_runtime_config(written.request_id, written.version);
    RETURN written;
END $$;


-- Partitions, for a worker that doesn't own them.

-- The last day whose records are forgotten. A minute late: a statement that began yesterday may still write there.
CREATE FUNCTION asynctaskd.forgotten_day() RETURNS date
LANGUAGE sql VOLATILE
RETURN ((asynctaskd.clock() - interval '1 minute') AT TIME ZONE 'UTC')::date;

-- Detaches a partition whose day has come. Only an owner may do so CONCURRENTLY, since no function can. This takes a lock
-- for which readers and finalize wait: so it gives up at once where somebody is in its way, says who (DETAIL), and is
-- tried again.
CREATE FUNCTION asynctaskd.detach_finished_partition(partition text) RETURNS void
LANGUAGE plpgsql SET lock_timeout = '100ms' AS $$
DECLARE
    child oid;
    pending boolean;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.finished_tasks'), 0);
    SELECT inhrelid, inhdetachpending INTO child, pending FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'asynctaskd.finished_tasks'::regclass AND relname = partition
      AND (regexp_match(pg_get_expr(relpartbound, pg_class.oid), 'TO \(''(.*)''\)'))[1]::date
          <= asynctaskd.forgotten_day() + 1;
    IF FOUND THEN
        EXECUTE format('ALTER TABLE asynctaskd.finished_tasks DETACH PARTITION asynctaskd.%I %s', partition,
                       CASE WHEN pending THEN 'FINALIZE' ELSE '' END);
    END IF;
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION '% is in use', partition USING ERRCODE = 'lock_not_available', DETAIL = array_to_string(ARRAY(
        SELECT DISTINCT pid FROM pg_locks
        WHERE locktype = 'relation' AND granted AND pid <> pg_backend_pid()
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND relation IN (child, 'asynctaskd.finished_tasks'::regclass)), ',');
END $$;

-- Drops a table of finished tasks that was detached, once its day has come; whether it did. Nobody attaches it meanwhile:
-- the lock is that of ensure_finished_partition. Who still reads it isn't waited for long.
CREATE OR REPLACE FUNCTION asynctaskd.drop_detached(partition text) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '500ms' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.finished_tasks'), 0);
    IF NOT EXISTS (
        SELECT FROM pg_class AS detached JOIN pg_class AS parent USING (relnamespace)
        WHERE parent.oid = 'asynctaskd.finished_tasks'::regclass AND detached.relname = partition
          AND detached.relkind = 'r' AND NOT detached.relispartition
          AND partition ~ '^finished_tasks_[0-9]{8}$'
          AND right(partition, 8) <= to_char(asynctaskd.forgotten_day(), 'YYYYMMDD') COLLATE "C"
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE asynctaskd.%I', partition);
    RETURN true;
END $$;

-- Begins or goes on watching, for a minute at most, since viewers may call it and all workers tell what they do meanwhile;
-- a lease of 0 ends it, and nobody is told.
CREATE OR REPLACE FUNCTION asynctaskd.watch(watcher uuid, wanted text, lease interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    until timestamptz := now_is + least(lease, interval '1 minute');
BEGIN
    UPDATE asynctaskd.watchers SET expires_at = until WHERE id = watcher AND expires_at > now_is;
    IF NOT FOUND AND until > now_is THEN
        DELETE FROM asynctaskd.watchers WHERE expires_at < now_is - interval '1 minute' OR id = watcher;
        INSERT INTO asynctaskd.watchers (id, wants, expires_at) VALUES (watcher, wanted, until);
        PERFORM pg_notify('asynctaskd_ready', '!watched');
    END IF;
END $$;

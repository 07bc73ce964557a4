-- schema 1.12
--
-- Commands: what operators ask of tasks, and a receipt for each task concerned. All of it is rows; notices hurry.

CREATE TABLE asynctaskd.commands (
    request_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    action text NOT NULL CHECK (action IN (
        'pause', 'cancel', 'resume', 'retry', 'expire', 'fail', 'reprioritize', 'run_now', 'purge')),
    selection jsonb NOT NULL,
    detail text,
    requested_by text NOT NULL DEFAULT session_user,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Whether its transaction saw its trees as they were before, so that workers have to look for younger children.
    looks_again boolean NOT NULL DEFAULT false
);
CREATE INDEX commands_requested_at ON asynctaskd.commands (requested_at);
CREATE INDEX commands_look_again ON asynctaskd.commands (request_id) WHERE looks_again;

CREATE TABLE asynctaskd.receipts (
    request_id uuid NOT NULL REFERENCES asynctaskd.commands ON DELETE CASCADE,
    task_id bigint NOT NULL,
    action text NOT NULL,         -- of the command
    status text,                  -- of the task, as of the last change of this row; NULL where there is none
    outcome text CHECK (outcome IN ('stopped', 'changed', 'refused')),  -- NULL until it is known
    reason text,
    worker_id uuid,
    claim_token bigint,           -- of the execution that is concerned
    requested_at timestamptz NOT NULL,
    delivered_at timestamptz,
    stopped_at timestamptz,
    PRIMARY KEY (request_id, task_id)
);
CREATE INDEX receipts_open ON asynctaskd.receipts (task_id) WHERE outcome IS NULL;
CREATE INDEX receipts_to_run ON asynctaskd.receipts (task_id)
    WHERE action = 'run_now' AND outcome IS NULL AND delivered_at IS NULL;

-- Whom an operator's request concerns, by worker.
CREATE INDEX tasks_requested ON asynctaskd.tasks (worker_id) WHERE requested IS NOT NULL;
-- Requests of tasks that don't run any more; those that only wait for their failure hook have been obeyed.
CREATE INDEX tasks_to_obey ON asynctaskd.tasks (id)
    WHERE requested IS NOT NULL AND worker_id IS NULL AND (requested <> 'failed' OR status = 'paused');

ALTER TABLE asynctaskd.definitions
    -- Whether a worker has to be told of a final failure.
    ADD COLUMN has_hook boolean NOT NULL DEFAULT false;

-- Whether whoever knows these names knows this one too; one that ends with * stands for all that begin so.
CREATE FUNCTION asynctaskd.knows(names text[], task_name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN task_name = ANY (names) OR EXISTS (
    SELECT FROM unnest(names) AS known WHERE known LIKE '%*' AND starts_with(task_name, left(known, -1)));

-- Whether a worker has to be told of the final failure of tasks of that name.
CREATE FUNCTION asynctaskd.has_hook(task_name text) RETURNS boolean
LANGUAGE sql STABLE
RETURN coalesce((SELECT has_hook FROM asynctaskd.definitions WHERE name = task_name),
                (asynctaskd.route_of(task_name)).has_hook, false);


-- What is chosen.

-- What is wrong with a selection, in words, or NULL.
CREATE FUNCTION asynctaskd.selection_problem(selection jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    known constant text[] := '{ids,unique_tag,tags,except_tags,name,status,label,since,until}';
    key text;
    a_set jsonb;
    moment timestamptz;
BEGIN
    IF selection IS NULL OR jsonb_typeof(selection) <> 'object' OR selection = '{}' THEN
        RETURN 'a selection must name tasks: by ids, unique_tag, tags, name, status, label, since or until';
    END IF;
    FOR key IN SELECT jsonb_object_keys(selection) LOOP
        IF key <> ALL (known) THEN
            RETURN format('unknown condition %L of a selection', key);
        ELSIF key IN ('ids', 'unique_tag') AND selection - key <> '{}' THEN
            RETURN format('%s excludes other conditions', key);
        ELSIF key IN ('ids', 'tags', 'except_tags') THEN
            IF jsonb_typeof(selection -> key) <> 'array' OR selection -> key = '[]' THEN
                RETURN format('%s must be a list that isn''t empty', key);
            END IF;
        ELSIF coalesce(selection ->> key, '') = '' OR jsonb_typeof(selection -> key) <> 'string' THEN
            RETURN format('%s must be a text that isn''t empty', key);
        END IF;
    END LOOP;
    IF selection @? '$.ids[*] ? (@.type() != "number")' OR EXISTS (
        SELECT FROM jsonb_array_elements_text(selection -> 'ids') AS id
        WHERE id::numeric % 1 <> 0 OR abs(id::numeric) > 9223372036854775807
    ) THEN
        RETURN 'ids must be integers of 64 bits';
    ELSIF selection @? '$.tags[*] ? (@.type() != "string" || @ == "")' THEN
        RETURN 'tags must be texts that aren''t empty';
    END IF;
    FOR a_set IN SELECT jsonb_array_elements(selection -> 'except_tags') LOOP
        IF jsonb_typeof(a_set) <> 'array' OR a_set = '[]' OR a_set @? '$[*] ? (@.type() != "string" || @ == "")' THEN
            RETURN 'except_tags must be a list of sets of tags, none of them empty';
        END IF;
    END LOOP;
    IF selection ->> 'status' NOT IN ('scheduled', 'waiting', 'pending', 'running', 'paused', 'completed', 'failed',
                                      'cancelled', 'expired') THEN
        RETURN format('%L is no status of a task', selection ->> 'status');
    END IF;
    FOREACH key IN ARRAY '{since,until}'::text[] LOOP
        BEGIN
            moment := (selection ->> key)::timestamptz;
        EXCEPTION WHEN data_exception THEN
            RETURN format('%s must be a time such as 2026-11-28T02:00:00Z, got %L', key, selection ->> key);
        END;
    END LOOP;
    RETURN NULL;
END $$;

-- Whether a task fits the conditions of a selection; `since` and `until` are about `at`.
CREATE FUNCTION asynctaskd.fits(
    selection jsonb, name text, status text, label_set text, tags text[], at timestamptz
) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (selection ->> 'name' IS NULL OR name = selection ->> 'name')
   AND (selection ->> 'status' IS NULL OR status = selection ->> 'status')
   AND (selection ->> 'label' IS NULL OR selection ->> 'label' = ANY (string_to_array(label_set, ',')))
   AND (selection ->> 'since' IS NULL OR at >= (selection ->> 'since')::timestamptz)
   AND (selection ->> 'until' IS NULL OR at < (selection ->> 'until')::timestamptz)
   AND (selection -> 'tags' IS NULL OR to_jsonb(tags) @> (selection -> 'tags'))
   AND (selection -> 'except_tags' IS NULL OR NOT EXISTS (
        SELECT FROM jsonb_array_elements(selection -> 'except_tags') AS excluded WHERE to_jsonb(tags) @> excluded));

-- The ids of a selection. Conditions choose among the tasks that an action can change: the finished ones (by the time
-- of their end) for retry and purge, and otherwise the live ones (by the time of their creation).
CREATE FUNCTION asynctaskd.selected(selection jsonb, action text) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    problem text := asynctaskd.selection_problem(selection);
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    IF selection ? 'ids' THEN
        RETURN QUERY SELECT DISTINCT id::numeric::bigint FROM jsonb_array_elements_text(selection -> 'ids') AS id;
    ELSIF selection ? 'unique_tag' THEN
        RETURN QUERY SELECT task_id FROM asynctaskd.unique_tags WHERE tag = selection ->> 'unique_tag';
    ELSIF action IN ('retry', 'purge') THEN
        RETURN QUERY SELECT id FROM asynctaskd.finished_tasks AS t
        WHERE (action = 'purge' OR status <> 'completed')
          AND asynctaskd.fits(selection, t.name, status, label_set, tags, finished_at);
    ELSE
        RETURN QUERY SELECT id FROM asynctaskd.tasks AS t
        WHERE asynctaskd.fits(selection, t.name, status, label_set, tags, created_at);
    END IF;
END $$;


-- What is done. Each function sees the receipts of one request, whose tasks are locked.

-- Puts the tasks of dead workers back, so that nobody waits for executions that are over.
CREATE FUNCTION asynctaskd.abandon(ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE asynctaskd.workers SET lost_at = asynctaskd.clock(), idle = false
    WHERE id IN (SELECT worker_id FROM asynctaskd.tasks WHERE tasks.id = ANY (ids) AND worker_id IS NOT NULL)
      AND stopped_at IS NULL AND lost_at IS NULL AND expires_at <= asynctaskd.clock()
      AND asynctaskd.clock() > pg_postmaster_start_time() + (expires_at - renewed_at);
    WITH abandoned AS (
        UPDATE asynctaskd.tasks AS t
        SET status = 'pending', worker_id = NULL, losses = losses + 1,
            reason = CASE WHEN reason LIKE 'failed_by_operator%' THEN reason
                          WHEN losses + 1 >= 3 THEN 'quarantined' ELSE 'lease_lost' END
        WHERE id = ANY (ids) AND status = 'running' AND NOT EXISTS (
            SELECT FROM asynctaskd.workers AS w
            WHERE w.id = t.worker_id AND w.stopped_at IS NULL AND w.lost_at IS NULL)
        RETURNING id, claim_token, claimed_at, losses
    )
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, claim_token, claimed_at, 'lease_lost', jsonb_build_object('losses', losses) FROM abandoned;
END $$;

-- Refuses, in words, what a request asks of tasks that have another status than these.
CREATE FUNCTION asynctaskd.refuse(request uuid, but text[]) RETURNS void
LANGUAGE sql AS $$
    UPDATE asynctaskd.receipts
    SET outcome = 'refused', reason = coalesce('it is ' || status, 'there is no such task, or its record was forgotten')
    WHERE request_id = request AND outcome IS NULL AND coalesce(status, '') <> ALL (but)
$$;

-- Asks the workers for those tasks of a request that run. Another request that is under way stands, unless it is for
-- a pause, which gives way.
CREATE FUNCTION asynctaskd.ask_workers(request uuid, wanted text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE asynctaskd.receipts AS r
    SET outcome = 'refused', reason = format('it is about to be %s', t.requested)
    FROM asynctaskd.tasks AS t
    WHERE r.request_id = request AND r.outcome IS NULL AND t.id = r.task_id AND t.status = 'running'
      AND t.requested IS NOT NULL AND (t.requested <> 'paused' OR wanted = 'paused');
    WITH taken_over AS MATERIALIZED (  -- by itself, since of one join the planner may compare each task with each receipt
        SELECT id, request_id AS former FROM asynctaskd.tasks
        WHERE id = ANY (ARRAY(SELECT task_id FROM asynctaskd.receipts WHERE request_id = request AND outcome IS NULL))
          AND status = 'running' AND requested IS NOT NULL
    )
    UPDATE asynctaskd.receipts AS r
    SET outcome = 'refused', reason = format('it is %s instead', wanted)
    FROM taken_over WHERE r.request_id = former AND r.task_id = taken_over.id AND r.outcome IS NULL;
    UPDATE asynctaskd.tasks SET requested = wanted, request_id = request
    WHERE status = 'running'
      AND id = ANY (ARRAY(SELECT task_id FROM asynctaskd.receipts WHERE request_id = request AND outcome IS NULL));
    IF FOUND THEN
        PERFORM pg_notify('asynctaskd_task_interrupt', json_build_object(
            'op', 'interrupt_task', 'params', json_build_object('request_id', request))::text);
    END IF;
END $$;

-- The tasks of a request that are still to be seen to and don't run.
CREATE FUNCTION asynctaskd.at_rest(request uuid) RETURNS bigint[]
LANGUAGE sql STABLE
RETURN ARRAY(SELECT r.task_id FROM asynctaskd.receipts AS r JOIN asynctaskd.tasks AS t ON t.id = r.task_id
             WHERE r.request_id = request AND r.outcome IS NULL AND t.status <> 'running');

-- Says what became of some tasks of a request.
CREATE FUNCTION asynctaskd.note_changed(request uuid, ids bigint[], new_status text DEFAULT NULL) RETURNS void
LANGUAGE sql AS $$
    UPDATE asynctaskd.receipts AS r
    SET outcome = 'changed', stopped_at = asynctaskd.clock(),
        status = coalesce(new_status, (SELECT t.status FROM asynctaskd.tasks AS t WHERE t.id = r.task_id))
    WHERE r.request_id = request AND r.task_id = ANY (ids) AND r.outcome IS NULL
$$;

CREATE FUNCTION asynctaskd.pause_tasks(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
    keys text[];
BEGIN
    PERFORM asynctaskd.refuse(request, '{scheduled,waiting,pending,paused,running}');
    UPDATE asynctaskd.receipts AS r
    SET outcome = 'refused',
        reason = CASE WHEN t.status = 'paused' THEN 'it is paused' ELSE 'it is about to fail, and only its hook is left' END
    FROM asynctaskd.tasks AS t
    WHERE r.request_id = request AND r.outcome IS NULL AND t.id = r.task_id
      -- One that was put aside for its name goes on when the name does, unless it is paused itself.
      AND (t.status = 'paused' AND t.reason IS DISTINCT FROM 'name paused'
           OR t.status = 'pending' AND (t.reason = 'quarantined' OR t.reason LIKE 'failed_by_operator%'));
    ids := asynctaskd.at_rest(request);
    WITH before AS MATERIALIZED (
        SELECT id, nullif(reason, 'name paused') AS reason FROM asynctaskd.tasks WHERE id = ANY (ids)
    ), paused AS (
        UPDATE asynctaskd.tasks AS t SET status = 'paused', reason = 'paused by operator'
        FROM before WHERE t.id = before.id
        RETURNING t.id, claim_token, serial_key, before.reason
    ), told AS (
        -- With its reason, which it gets back when it is resumed.
        INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail)
        SELECT id, claim_token, 'paused', asynctaskd.said(jsonb_build_object('request_id', request, 'reason', reason))
        FROM paused
    )
    SELECT array_agg(DISTINCT serial_key) FILTER (WHERE serial_key IS NOT NULL) INTO keys FROM paused;
    PERFORM asynctaskd.note_changed(request, ids);
    PERFORM asynctaskd.promote_lines(keys);
    PERFORM asynctaskd.ask_workers(request, 'paused');
END $$;

CREATE FUNCTION asynctaskd.end_tasks(request uuid, new_status text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
    moved bigint;
BEGIN
    PERFORM asynctaskd.refuse(request, '{scheduled,waiting,pending,paused,running}');
    ids := asynctaskd.at_rest(request);
    moved := asynctaskd.finish(ids, new_status, new_status || ' by operator');
    PERFORM asynctaskd.note_changed(request, ids, new_status);
    PERFORM asynctaskd.ask_workers(request, new_status);
END $$;

-- Fails tasks that don't run. A failure that somebody has to be told of is left to a worker, which claims the task for
-- its hook alone; returns those.
CREATE FUNCTION asynctaskd.fail_now(ids bigint[], why text) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    hooked bigint[] := ARRAY(
        SELECT t.id FROM asynctaskd.tasks AS t WHERE t.id = ANY (ids) AND asynctaskd.has_hook(t.name));
    keys text[] := ARRAY(SELECT serial_key FROM asynctaskd.tasks WHERE id = ANY (hooked) AND serial_key IS NOT NULL);
    failed bigint;
BEGIN
    DELETE FROM asynctaskd.dependencies WHERE task_id = ANY (hooked);
    -- Nothing is waited for any more, and its serial key's line goes on without it.
    UPDATE asynctaskd.tasks
    SET status = 'paused', run_at = NULL, deadline = NULL, serial_key = NULL, serial_id = NULL, reason = 'failed_by_operator: ' || why
    WHERE id = ANY (hooked);
    PERFORM asynctaskd.set_going(hooked);
    PERFORM asynctaskd.promote_lines(keys);
    failed := asynctaskd.finish(ARRAY(SELECT id FROM unnest(ids) AS id WHERE id <> ALL (hooked)),
                                'failed', 'failed_by_operator', why);
    RETURN hooked;
END $$;

CREATE FUNCTION asynctaskd.fail_tasks(request uuid, why text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
    hooked bigint[];
BEGIN
    PERFORM asynctaskd.refuse(request, '{scheduled,waiting,pending,paused,running}');
    ids := asynctaskd.at_rest(request);
    hooked := asynctaskd.fail_now(ids, why);
    UPDATE asynctaskd.tasks SET requested = 'failed', request_id = request WHERE id = ANY (hooked);
    PERFORM asynctaskd.note_changed(request, ARRAY(SELECT id FROM unnest(ids) AS id WHERE id <> ALL (hooked)), 'failed');
    PERFORM asynctaskd.ask_workers(request, 'failed');
    UPDATE asynctaskd.receipts SET reason = 'its failure hook runs first' WHERE request_id = request AND task_id = ANY (hooked);
    IF NOT EXISTS (SELECT FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w)) THEN
        PERFORM asynctaskd.note_changed(request, hooked);
    END IF;
END $$;

CREATE FUNCTION asynctaskd.resume_tasks(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    stayed bigint[];
    ids bigint[];
BEGIN
    WITH taken_back AS (
        UPDATE asynctaskd.tasks AS t SET requested = NULL, request_id = NULL
        FROM asynctaskd.receipts AS r, asynctaskd.tasks AS before
        WHERE r.request_id = request AND t.id = r.task_id AND before.id = t.id
          AND t.status = 'running' AND t.requested = 'paused'
        RETURNING t.id, before.request_id AS former
    ), told AS (
        UPDATE asynctaskd.receipts AS r SET outcome = 'refused', reason = 'it was resumed before it had stopped'
        FROM taken_back WHERE r.request_id = former AND r.task_id = taken_back.id AND r.outcome IS NULL
    )
    SELECT array_agg(id) INTO stayed FROM taken_back;
    PERFORM asynctaskd.note_changed(request, stayed);
    UPDATE asynctaskd.receipts SET outcome = 'refused', reason = 'it is ' || status
    WHERE request_id = request AND outcome IS NULL AND status IS DISTINCT FROM 'paused';
    PERFORM asynctaskd.refuse(request, '{paused,running}');
    ids := asynctaskd.at_rest(request);
    UPDATE asynctaskd.tasks
    SET reason = (SELECT detail ->> 'reason' FROM asynctaskd.task_events
                  WHERE task_id = tasks.id AND kind = 'paused' ORDER BY task_events.id DESC LIMIT 1)
    WHERE id = ANY (ids);
    PERFORM asynctaskd.set_going(ids);
    INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail)
    SELECT id, claim_token, 'resumed', jsonb_build_object('request_id', request) FROM asynctaskd.tasks WHERE id = ANY (ids);
    PERFORM asynctaskd.note_changed(request, ids);
END $$;

-- Refuses to revive what depends on a task that didn't complete and isn't revived by the same request.
CREATE FUNCTION asynctaskd.refuse_the_stranded(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    LOOP
        UPDATE asynctaskd.receipts AS r
        SET outcome = 'refused', reason = format('it depends on task %s, which is %s: retry that first', needed.id, how)
        FROM asynctaskd.finished_tasks AS f, unnest(f.depends_on) AS needed(id), asynctaskd.end_of(needed.id) AS how
        WHERE r.request_id = request AND r.outcome IS NULL AND f.id = r.task_id AND how <> 'completed'
          AND NOT EXISTS (SELECT FROM asynctaskd.receipts AS revived
                          WHERE revived.request_id = request AND revived.task_id = needed.id AND revived.outcome IS NULL);
        EXIT WHEN NOT FOUND;
    END LOOP;
END $$;

-- Revives finished tasks under their ids, with a fresh budget. The claim token goes on growing: late results of former
-- executions stay stale. A deadline that has passed and a start time say nothing any more.
CREATE FUNCTION asynctaskd.retry_tasks(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
BEGIN
    PERFORM asynctaskd.refuse(request, '{failed,cancelled,expired}');
    UPDATE asynctaskd.receipts AS r
    SET outcome = 'refused', reason = format('its unique tag %L is held by task %s', f.unique_tag, holder)
    FROM asynctaskd.finished_tasks AS f, LATERAL (
        SELECT coalesce(
            (SELECT task_id FROM asynctaskd.unique_tags WHERE tag = f.unique_tag AND task_id <> f.id),
            (SELECT min(other.id) FROM asynctaskd.receipts AS o JOIN asynctaskd.finished_tasks AS other ON other.id = o.task_id
             WHERE o.request_id = request AND o.outcome IS NULL AND other.unique_tag = f.unique_tag AND other.id < f.id)
        ) AS holder) AS held
    WHERE r.request_id = request AND r.outcome IS NULL AND f.id = r.task_id AND holder IS NOT NULL;
    PERFORM asynctaskd.refuse_the_stranded(request);
    ids := ARRAY(SELECT task_id FROM asynctaskd.receipts WHERE request_id = request AND outcome IS NULL);
    UPDATE asynctaskd.unique_tags SET forget_on = NULL WHERE task_id = ANY (ids);
    INSERT INTO asynctaskd.unique_tags (tag, task_id, until)
    SELECT unique_tag, id, 'finished' FROM asynctaskd.finished_tasks WHERE id = ANY (ids) AND unique_tag IS NOT NULL
    ON CONFLICT DO NOTHING;  -- its own
    IF EXISTS (SELECT FROM asynctaskd.finished_tasks AS f JOIN asynctaskd.unique_tags AS held ON held.tag = f.unique_tag
               WHERE f.id = ANY (ids) AND held.task_id <> f.id) THEN
        RAISE EXCEPTION 'a unique tag of these tasks was taken at this moment: try again' USING ERRCODE = '40001';
    END IF;
    WITH revived AS (
        DELETE FROM asynctaskd.finished_tasks WHERE id = ANY (ids) RETURNING *
    )
    INSERT INTO asynctaskd.tasks (
        id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at, priority, weight,
        attempts, failures, losses, max_attempts, worker_id, timeout, keep, status, name, label_set, tags, depends_on,
        unique_tag, serial_key, retry, reason, last_error, payload, progress, metadata)
    SELECT id, claim_token, parent_id, root_id, serial_id, created_at, NULL,
           CASE WHEN deadline > asynctaskd.clock() THEN deadline END, claimed_at, priority, weight,
           attempts, 0, 0, max_attempts, NULL, timeout, keep, 'paused', name, label_set, tags, depends_on,
           unique_tag, serial_key, retry, NULL, last_error, payload, NULL, metadata
    FROM revived;
    INSERT INTO asynctaskd.dependencies (depends_on, task_id)
    SELECT DISTINCT needed, id FROM asynctaskd.tasks CROSS JOIN LATERAL unnest(depends_on) AS needed
    WHERE id = ANY (ids) AND asynctaskd.end_of(needed) IS NULL;
    PERFORM asynctaskd.set_going(ids);
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, claim_token, claimed_at, 'retried_by_operator', jsonb_build_object('request_id', request)
    FROM asynctaskd.tasks WHERE id = ANY (ids);
    PERFORM asynctaskd.note_changed(request, ids);
END $$;

-- Asks the workers to claim one task out of turn, or before its time.
CREATE FUNCTION asynctaskd.run_tasks(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM asynctaskd.refuse(request, '{pending,scheduled}');
    PERFORM pg_notify('asynctaskd_task_interrupt', json_build_object(
        'op', 'run_task', 'params', json_build_object('request_id', request))::text);
END $$;

-- Forgets finished tasks, with their tags and events.
CREATE FUNCTION asynctaskd.purge_tasks(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
BEGIN
    PERFORM asynctaskd.refuse(request, '{completed,failed,cancelled,expired}');
    -- Forgotten, it would be taken for completed.
    UPDATE asynctaskd.receipts SET outcome = 'refused', reason = 'tasks that depend on it are still to follow its end'
    WHERE request_id = request AND outcome IS NULL AND task_id = ANY (asynctaskd.awaited_of(ARRAY(
        SELECT task_id FROM asynctaskd.receipts WHERE request_id = request AND outcome IS NULL)));
    ids := ARRAY(SELECT task_id FROM asynctaskd.receipts WHERE request_id = request AND outcome IS NULL);
    DELETE FROM asynctaskd.finished_tasks WHERE id = ANY (ids);
    DELETE FROM asynctaskd.unique_tags WHERE task_id = ANY (ids);
    DELETE FROM asynctaskd.task_events WHERE task_id = ANY (ids);
    UPDATE asynctaskd.receipts SET outcome = 'changed', status = NULL, stopped_at = asynctaskd.clock()
    WHERE request_id = request AND outcome IS NULL;
END $$;


-- The one way in. Returns the id of the request, by which its receipts are found.
CREATE FUNCTION asynctaskd.command(
    action text, selection jsonb, cascades boolean DEFAULT true, detail text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SET jit = off
AS $$
#variable_conflict use_variable
DECLARE
    problem text;
    request uuid := gen_random_uuid();
    ids bigint[];
    below bigint[];
BEGIN
    IF action IS NULL OR action NOT IN ('pause', 'cancel', 'resume', 'retry', 'expire', 'fail', 'run_now', 'purge') THEN
        problem := format('unknown action %L', action);
    ELSIF action = 'fail' AND coalesce(detail, '') = '' THEN
        problem := 'fail needs a reason';
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    ids := ARRAY(SELECT asynctaskd.selected(selection, action));
    INSERT INTO asynctaskd.commands (request_id, action, selection, detail, looks_again)
    VALUES (request, action, selection, detail, cascades AND action IN ('pause', 'cancel')
            AND current_setting('transaction_isolation') IN ('repeatable read', 'serializable'));
    IF cascades AND action IN ('pause', 'cancel', 'resume') THEN
        below := asynctaskd.with_descendants(ids);
        -- Those that go on anyway aren't concerned.
        ids := ids || ARRAY(SELECT id FROM asynctaskd.tasks WHERE id = ANY (below) AND id <> ALL (ids)
                            AND (action <> 'resume' OR coalesce(requested, status) = 'paused'));
    END IF;
    PERFORM FROM asynctaskd.tasks WHERE id = ANY (ids) ORDER BY id FOR UPDATE;
    IF action IN ('retry', 'purge') THEN  -- whoever else revives or forgets them was first, or waits
        PERFORM FROM asynctaskd.finished_tasks WHERE id = ANY (ids) ORDER BY id FOR UPDATE;
    END IF;
    PERFORM asynctaskd.abandon(ids);
    PERFORM asynctaskd.obey(ids);
    PERFORM asynctaskd.close_receipts(ids);
    INSERT INTO asynctaskd.receipts (request_id, task_id, action, status, worker_id, claim_token, requested_at)
    SELECT request, wanted.id, action, coalesce(t.status, f.status), t.worker_id, t.claim_token, asynctaskd.clock()
    FROM unnest(ids) AS wanted(id) LEFT JOIN asynctaskd.tasks AS t ON t.id = wanted.id
         LEFT JOIN asynctaskd.finished_tasks AS f ON f.id = wanted.id;
    CASE action
        WHEN 'pause' THEN PERFORM asynctaskd.pause_tasks(request);
        WHEN 'cancel' THEN PERFORM asynctaskd.end_tasks(request, 'cancelled');
        WHEN 'resume' THEN PERFORM asynctaskd.resume_tasks(request);
        WHEN 'retry' THEN PERFORM asynctaskd.retry_tasks(request);
        WHEN 'expire' THEN PERFORM asynctaskd.end_tasks(request, 'expired');
        WHEN 'fail' THEN PERFORM asynctaskd.fail_tasks(request, detail);
        WHEN 'run_now' THEN PERFORM asynctaskd.run_tasks(request);
        WHEN 'purge' THEN PERFORM asynctaskd.purge_tasks(request);
    END CASE;
    RETURN request;
END $$;

-- Changes priority or weight of the live tasks that don't run and carry any of these labels (none given: only those
-- without labels); returns how many.
CREATE FUNCTION asynctaskd.reprioritize(
    any_label text[] DEFAULT '{}', priority integer DEFAULT NULL, weight integer DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    request uuid := gen_random_uuid();
    problem text := coalesce(
        CASE WHEN num_nonnulls(reprioritize.priority, reprioritize.weight) = 0
                 THEN 'reprioritize needs a priority or a weight'
             WHEN reprioritize.priority < 0 THEN format('priority must be at least 0, got %s', reprioritize.priority)
             WHEN reprioritize.weight < 1 THEN format('weight must be at least 1, got %s', reprioritize.weight) END,
        CASE WHEN any_label IS NULL THEN 'any_label must be a list of labels, and an empty one for tasks without labels'
             ELSE asynctaskd.labels_problem(any_label) END);
    changed bigint;
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    INSERT INTO asynctaskd.commands (request_id, action, selection)
    VALUES (request, 'reprioritize', jsonb_strip_nulls(jsonb_build_object(
        'any_label', any_label, 'priority', reprioritize.priority, 'weight', reprioritize.weight)));
    WITH chosen AS (
        SELECT id FROM asynctaskd.tasks
        WHERE status <> 'running' AND CASE WHEN any_label = '{}' THEN label_set = ''
                                           ELSE string_to_array(label_set, ',') && any_label END
        ORDER BY id FOR UPDATE
    ), done AS (
        UPDATE asynctaskd.tasks AS t
        SET priority = coalesce(reprioritize.priority, t.priority), weight = coalesce(reprioritize.weight, t.weight)
        FROM chosen WHERE t.id = chosen.id
        RETURNING t.id, t.claim_token, t.priority, t.weight
    ), told AS (
        INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail)
        SELECT id, claim_token, 'reprioritized',
               jsonb_build_object('priority', priority, 'weight', weight, 'request_id', request) FROM done
    )
    SELECT count(*) INTO changed FROM done;
    IF changed > 0 THEN
        PERFORM pg_notify('asynctaskd_ready', '*');  -- anywhere in the order, so everybody looks from the start
    END IF;
    RETURN changed;
END $$;


-- What becomes of requests.

-- A worker takes in what is asked of the tasks it runs: marks the receipts as delivered and says so. Returns each task
-- with its claim, where it is to go and why, as often as it is asked, until the execution has stopped.
CREATE FUNCTION asynctaskd.deliver(worker uuid)
RETURNS TABLE (task_id bigint, claim_token bigint, requested text, detail text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    request uuid;
    asked bigint[] := ARRAY(SELECT id FROM asynctaskd.tasks WHERE worker_id = worker AND requested IS NOT NULL);
    requests uuid[];
BEGIN
    IF asked = '{}' THEN
        RETURN;
    END IF;
    requests := ARRAY(SELECT DISTINCT request_id FROM asynctaskd.tasks WHERE id = ANY (asked));
    FOR request IN WITH delivered AS (
        UPDATE asynctaskd.receipts SET delivered_at = asynctaskd.clock(), worker_id = worker
        WHERE request_id = ANY (requests) AND task_id = ANY (asked) AND delivered_at IS NULL AND outcome IS NULL
        RETURNING request_id
    ) SELECT DISTINCT request_id FROM delivered LOOP
        PERFORM pg_notify('asynctaskd_task_interrupt_ack', json_build_object(
            'op', 'ack', 'params', json_build_object('request_id', request, 'worker_id', worker))::text);
    END LOOP;
    RETURN QUERY
    SELECT t.id, t.claim_token, t.requested,
           (SELECT c.detail FROM asynctaskd.commands AS c WHERE c.request_id = t.request_id)
    FROM asynctaskd.tasks AS t WHERE t.id = ANY (asked) AND t.worker_id = worker AND t.requested IS NOT NULL;
END $$;

-- Obeys the requests of some tasks that don't run any more, whoever moved them.
CREATE FUNCTION asynctaskd.obey(ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT requested, detail, array_agg(id) AS ids
        FROM (SELECT id, requested,
                     (SELECT c.detail FROM asynctaskd.commands AS c WHERE c.request_id = t.request_id) AS detail
              FROM asynctaskd.tasks AS t
              WHERE id = ANY (obey.ids) AND requested IS NOT NULL AND worker_id IS NULL
                AND (requested <> 'failed' OR status = 'paused')) AS asked
        GROUP BY requested, detail
    LOOP
        CASE held.requested
            WHEN 'paused' THEN PERFORM asynctaskd.obey_pause(held.ids);
            WHEN 'failed' THEN PERFORM asynctaskd.fail_now(held.ids, coalesce(held.detail, 'failed by operator'));
            ELSE PERFORM asynctaskd.finish(held.ids, held.requested, held.requested || ' by operator');
        END CASE;
    END LOOP;
END $$;

CREATE FUNCTION asynctaskd.obey_pause(ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail)
    SELECT id, claim_token, 'paused', asynctaskd.said(jsonb_build_object(
        'request_id', request_id, 'reason', nullif(nullif(reason, 'paused by operator'), 'name paused')))
    FROM asynctaskd.tasks WHERE id = ANY (ids);
    UPDATE asynctaskd.tasks
    SET requested = NULL, request_id = NULL, status = 'paused',
        reason = CASE WHEN reason = 'quarantined' THEN reason ELSE 'paused by operator' END
    WHERE id = ANY (ids);
    -- It has failed already: only its hook is left to run.
    PERFORM asynctaskd.set_going(ARRAY(SELECT id FROM asynctaskd.tasks WHERE id = ANY (ids) AND reason = 'quarantined'));
END $$;

-- Completes the receipts of all that is over, of some tasks or (NULL) of any. Returns how many that was.
CREATE FUNCTION asynctaskd.close_receipts(of_tasks bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    closed bigint;
BEGIN
    WITH over AS (
        SELECT r.request_id, r.task_id, r.action, t.status AS live, asynctaskd.end_of(r.task_id) AS ended,
               -- A worker that doesn't know its name claims a task too, only to put it back.
               r.delivered_at IS NOT NULL AND t.reason IS DISTINCT FROM 'unknown_name' AS has_run
        FROM asynctaskd.receipts AS r
             -- With a LIMIT, so that the planner can't make a join of it that walks through all tasks.
             LEFT JOIN LATERAL (
                 SELECT status, claim_token, request_id, reason FROM asynctaskd.tasks WHERE id = r.task_id LIMIT 1
             ) AS t ON true
        WHERE r.outcome IS NULL AND t.request_id IS DISTINCT FROM r.request_id
          AND (of_tasks IS NULL OR r.task_id = ANY (of_tasks))
          -- Of a task that was to be run, once that has begun and is over.
          AND (r.action <> 'run_now' OR t.status IS NULL
               OR (r.delivered_at IS NOT NULL AND (t.status <> 'running' OR t.claim_token <> r.claim_token)))
        LIMIT 5000 FOR UPDATE OF r SKIP LOCKED
    )
    UPDATE asynctaskd.receipts AS r
    SET status = coalesce(over.live, over.ended), stopped_at = asynctaskd.clock(),
        outcome = CASE WHEN is_as_asked THEN 'stopped' ELSE 'refused' END,
        reason = CASE WHEN is_as_asked THEN r.reason
                      WHEN over.live IS NULL THEN 'finished first'
                      ELSE 'it is ' || over.live END
    FROM over CROSS JOIN LATERAL (
        SELECT CASE over.action WHEN 'run_now' THEN over.has_run OR over.ended = 'completed'
                                WHEN 'pause' THEN over.live = 'paused'
                                ELSE over.ended = CASE over.action WHEN 'cancel' THEN 'cancelled'
                                                                   WHEN 'expire' THEN 'expired' ELSE 'failed' END
               END IS TRUE AS is_as_asked
    ) AS judged
    WHERE r.request_id = over.request_id AND r.task_id = over.task_id;
    GET DIAGNOSTICS closed = ROW_COUNT;
    RETURN closed;
END $$;

-- A task that was to be run out of turn may have had its turn first: that is as good.
CREATE FUNCTION asynctaskd.note_turns() RETURNS void
LANGUAGE sql AS $$
    UPDATE asynctaskd.receipts AS r
    SET delivered_at = begun.claimed_at, worker_id = begun.worker_id, claim_token = begun.claim_token, status = 'running'
    FROM (
        SELECT asked.request_id, asked.task_id, claim.*
        FROM asynctaskd.receipts AS asked CROSS JOIN LATERAL (
            SELECT claimed_at, worker_id, claim_token FROM asynctaskd.tasks
            WHERE id = asked.task_id AND claim_token > asked.claim_token
              AND (reason IS DISTINCT FROM 'unknown_name' OR status = 'running')
            UNION ALL
            SELECT claimed_at, worker_id, claim_token FROM asynctaskd.finished_tasks
            WHERE id = asked.task_id AND claim_token > asked.claim_token
            LIMIT 1) AS claim
        WHERE asked.action = 'run_now' AND asked.outcome IS NULL AND asked.delivered_at IS NULL
    ) AS begun
    WHERE r.request_id = begun.request_id AND r.task_id = begun.task_id
$$;

-- Of tasks that were to be run now, those that no worker took: takes the request back.
CREATE FUNCTION asynctaskd.withdraw(request uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM asynctaskd.note_turns();
    UPDATE asynctaskd.receipts AS r
    SET outcome = 'refused', reason = 'no worker that may run it had a free slot in time',
        status = coalesce((SELECT t.status FROM asynctaskd.tasks AS t WHERE t.id = r.task_id), r.status)
    WHERE r.request_id = request AND r.action = 'run_now' AND r.outcome IS NULL AND r.delivered_at IS NULL;
END $$;

-- The live tasks that have an ancestor among those that a request concerned, and weren't among them themselves: its
-- transaction couldn't see them. By its receipts: the record of an ancestor may be forgotten by now, and what another
-- command has left alone isn't this one's. An ancestor that goes on, since it was resumed or retried, counts no more.
CREATE FUNCTION asynctaskd.overlooked(request uuid, action text) RETURNS bigint[]
LANGUAGE sql STABLE
RETURN ARRAY(
    WITH RECURSIVE concerned AS MATERIALIZED (
        SELECT task_id AS id FROM asynctaskd.receipts WHERE request_id = request
    ), root AS MATERIALIZED (
        SELECT coalesce(t.root_id, f.root_id, c.id) AS id
        FROM concerned AS c
             LEFT JOIN LATERAL (SELECT root_id FROM asynctaskd.tasks WHERE id = c.id LIMIT 1) AS t ON true
             LEFT JOIN LATERAL (SELECT root_id FROM asynctaskd.finished_tasks WHERE id = c.id LIMIT 1) AS f ON true
    ), node (id, parent_id) AS (  -- each once, however many are below it
        SELECT id, parent_id FROM asynctaskd.tasks
        WHERE root_id = ANY (ARRAY(SELECT id FROM root)) AND id NOT IN (SELECT id FROM concerned)
        UNION
        SELECT up.id, up.parent_id
        FROM node CROSS JOIN LATERAL (
            SELECT id, parent_id FROM asynctaskd.tasks WHERE id = node.parent_id
            UNION ALL
            SELECT id, parent_id FROM asynctaskd.finished_tasks WHERE id = node.parent_id) AS up
        WHERE node.parent_id NOT IN (SELECT id FROM concerned)
    ), below (id) AS (
        SELECT id FROM concerned AS c WHERE NOT EXISTS (
            SELECT FROM asynctaskd.tasks AS t
            WHERE t.id = c.id AND coalesce(requested, status)
                                  <> CASE action WHEN 'cancel' THEN 'cancelled' ELSE 'paused' END)
        UNION
        SELECT node.id FROM below JOIN node ON node.parent_id = below.id
    )
    SELECT t.id FROM below JOIN asynctaskd.tasks AS t ON t.id = below.id
    WHERE t.id NOT IN (SELECT id FROM concerned));

-- Pauses or cancels the children that a command's transaction couldn't see: committed before it, after its snapshot.
-- Who is enqueued after it sees it, so that once is enough. The younger children have a request of their own. Nobody
-- waits here: where somebody has one of them in hand, this comes again.
CREATE FUNCTION asynctaskd.look_again() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    given record;
    missed bigint[];
    free bigint[];
BEGIN
    SELECT request_id, action INTO given FROM asynctaskd.commands WHERE looks_again
    ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED;  -- any: one that has to wait mustn't hold up the others
    IF NOT FOUND THEN
        RETURN;
    END IF;
    missed := asynctaskd.overlooked(given.request_id, given.action);
    free := ARRAY(SELECT id FROM asynctaskd.tasks WHERE id = ANY (missed) ORDER BY id FOR UPDATE SKIP LOCKED);
    IF free <> '{}' THEN
        PERFORM asynctaskd.command(given.action, jsonb_build_object('ids', free), cascades => false);
    END IF;
    UPDATE asynctaskd.commands SET looks_again = false
    WHERE request_id = given.request_id AND cardinality(free) = cardinality(missed);
END $$;

-- Sees to all requests. Returns how many receipts were completed.
CREATE FUNCTION asynctaskd.settle() RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    free bigint[] := ARRAY(
        SELECT id FROM asynctaskd.tasks
        WHERE requested IS NOT NULL AND worker_id IS NULL AND (requested <> 'failed' OR status = 'paused')
        LIMIT 1000 FOR UPDATE SKIP LOCKED);
BEGIN
    IF free <> '{}' THEN
        PERFORM asynctaskd.obey(free);
    END IF;
    PERFORM asynctaskd.look_again();
    IF EXISTS (SELECT FROM asynctaskd.receipts
               WHERE action = 'run_now' AND outcome IS NULL AND delivered_at IS NULL) THEN
        PERFORM asynctaskd.note_turns();
        -- Nobody waits so long: who asked has gone without a word, or never waited.
        PERFORM asynctaskd.withdraw(request_id) FROM asynctaskd.receipts
        WHERE action = 'run_now' AND outcome IS NULL AND delivered_at IS NULL
          AND requested_at < asynctaskd.clock() - interval '1 hour';
    END IF;
    RETURN asynctaskd.close_receipts();
END $$;

-- Settles, and returns how many receipts of a request are open still.
CREATE FUNCTION asynctaskd.settle_request(request uuid) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    settled bigint := asynctaskd.settle();
BEGIN
    RETURN (SELECT count(*) FROM asynctaskd.receipts WHERE request_id = request AND outcome IS NULL);
END $$;

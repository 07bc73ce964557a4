-- schema 1.13
--
-- Why a task isn't running: the one reason, in words, and what would change it. Read from rows alone, each by an index,
-- so that it can be asked while a million tasks wait. The functions below each look at one status or one obstacle, and
-- return NULL where that isn't it.

CREATE TYPE asynctaskd.reason AS (
    reason text,       -- a word for programs
    explanation text,  -- a sentence
    remedy text,       -- what would change it; NULL where nothing has to
    detail jsonb
);

CREATE FUNCTION asynctaskd.because(reason text, explanation text, remedy text DEFAULT NULL, detail jsonb DEFAULT '{}')
RETURNS asynctaskd.reason
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(reason, explanation, remedy, detail)::asynctaskd.reason;

CREATE FUNCTION asynctaskd.instant(moment timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"');

-- The newest configuration that is for all workers.
CREATE FUNCTION asynctaskd.config_in_force() RETURNS asynctaskd.runtime_configs
LANGUAGE sql STABLE PARALLEL SAFE
RETURN (SELECT c FROM asynctaskd.runtime_configs AS c WHERE version = asynctaskd.newest_for_all());

-- The command that last did something to a task, in words.
CREATE FUNCTION asynctaskd.who_asked(task bigint, event text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN coalesce(
    (SELECT format('by command %s of %s at %s', c.request_id, c.requested_by, asynctaskd.instant(c.requested_at))
     FROM asynctaskd.commands AS c
     WHERE c.request_id = (SELECT (e.detail ->> 'request_id')::uuid FROM asynctaskd.task_events AS e
                           WHERE e.task_id = task AND e.kind = event ORDER BY e.id DESC LIMIT 1)),
    'by an operator');

CREATE FUNCTION asynctaskd.why_ended(task bigint) RETURNS asynctaskd.reason
LANGUAGE sql STABLE
RETURN (SELECT asynctaskd.because(
    status, format('it has ended: %s at %s%s', status, asynctaskd.instant(finished_at),
                   coalesce(': ' || nullif(concat_ws(', ', reason, last_error), ''), '')),
    CASE WHEN status <> 'completed' THEN format('asynctaskd tasks retry %s runs it again', id) END,
    jsonb_strip_nulls(jsonb_build_object('finished_at', finished_at, 'reason', reason, 'last_error', last_error)))
    FROM asynctaskd.finished_tasks WHERE id = task LIMIT 1);

CREATE FUNCTION asynctaskd.why_running(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
DECLARE
    w asynctaskd.workers;
    place text;
BEGIN
    SELECT * INTO w FROM asynctaskd.workers WHERE id = t.worker_id;
    place := format('worker %s (%s:%s)', t.worker_id, w.hostname, w.pid);
    IF w.id IS NULL OR NOT asynctaskd.is_live(w) THEN
        RETURN asynctaskd.because('lost', format('its %s is gone; it is put back within a second of a live worker', place),
                                  'start a worker, if none is live', jsonb_build_object('worker_id', t.worker_id));
    ELSIF t.requested IS NOT NULL THEN
        RETURN asynctaskd.because(
            'stopping', format('it still runs on %s, though it was told to stop: it is to be %s', place, t.requested),
            'its handler has to end: look for what swallows the cancellation, or end that worker',
            jsonb_build_object('worker_id', t.worker_id, 'requested', t.requested));
    ELSIF (w.stall ->> 'task_id')::bigint IS DISTINCT FROM t.id AND w.stall IS NOT NULL THEN
        RETURN asynctaskd.because(
            'blocked', format('it runs on %s, whose event loop is blocked by %s (task %s) for %s s', place,
                              w.stall ->> 'task', w.stall ->> 'task_id', w.stall ->> 'seconds'),
            'use await there, or a synchronous handler, which runs in a thread', w.stall);
    END IF;
    RETURN asynctaskd.because(
        'running', format('it runs on %s since %s', place, asynctaskd.instant(t.claimed_at)), NULL,
        jsonb_build_object('worker_id', t.worker_id, 'claimed_at', t.claimed_at));
END $$;

CREATE FUNCTION asynctaskd.why_paused(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF t.reason = 'name paused' THEN
        RETURN asynctaskd.because(
            'name_paused', format('its name %s is paused by version %s of the runtime configuration', t.name,
                                  (asynctaskd.config_in_force()).version),
            'take the name out of paused_names', jsonb_build_object('name', t.name));
    ELSIF t.reason = 'parent paused' THEN
        RETURN asynctaskd.because(
            'paused', format('it was born below task %s, which was paused', t.parent_id),
            format('asynctaskd tasks resume %s', t.root_id), jsonb_build_object('parent_id', t.parent_id));
    END IF;
    RETURN asynctaskd.because('paused', format('it was paused %s', asynctaskd.who_asked(t.id, 'paused')),
                              format('asynctaskd tasks resume %s', t.id));
END $$;

CREATE FUNCTION asynctaskd.why_scheduled(t asynctaskd.tasks) RETURNS asynctaskd.reason
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
            'retry', format('its execution %s failed (%s: %s) and it is tried again at %s', t.failures, t.reason,
                            left(t.last_error, 200), until),
            format('asynctaskd tasks run-now %s doesn''t wait', t.id), detail || jsonb_build_object('reason', t.reason));
    END IF;
    RETURN asynctaskd.because('scheduled', format('it waits until %s', until),
                              format('asynctaskd tasks run-now %s doesn''t wait', t.id), detail);
END $$;

CREATE FUNCTION asynctaskd.why_waiting(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
DECLARE
    needed jsonb;
    ahead asynctaskd.tasks;
BEGIN
    SELECT jsonb_agg(jsonb_build_object('id', d.depends_on, 'status', s.status) ORDER BY d.depends_on) INTO needed
    FROM (SELECT depends_on FROM asynctaskd.dependencies WHERE task_id = t.id ORDER BY depends_on LIMIT 20) AS d
         CROSS JOIN LATERAL (SELECT coalesce(
             (SELECT l.status FROM asynctaskd.tasks AS l WHERE l.id = d.depends_on),
             asynctaskd.end_of(d.depends_on)) AS status) AS s;
    IF needed IS NOT NULL THEN
        RETURN asynctaskd.because(
            'dependencies', format('it depends on %s', (
                SELECT string_agg(format('task %s (%s)', one ->> 'id', one ->> 'status'), ', ')
                FROM jsonb_array_elements(needed) AS one)),
            format('asynctaskd tasks why %s', needed -> 0 ->> 'id'), jsonb_build_object('depends_on', needed));
    END IF;
    SELECT * INTO ahead FROM asynctaskd.tasks
    WHERE serial_key = t.serial_key AND status IN ('pending', 'scheduled', 'running') LIMIT 1;
    IF NOT FOUND THEN
        SELECT * INTO ahead FROM asynctaskd.tasks
        WHERE serial_key = t.serial_key AND status = 'waiting' AND NOT asynctaskd.depends(id)
        ORDER BY serial_id, id LIMIT 1;
    END IF;
    RETURN asynctaskd.because(
        'serial_key',
        CASE WHEN ahead.id = t.id THEN format('it is the next of its serial key %L, and goes within a second', t.serial_key)
             ELSE format('its serial key %L is held by task %s (%s)', t.serial_key, ahead.id, ahead.status) END,
        CASE WHEN ahead.id <> t.id THEN format('asynctaskd tasks why %s', ahead.id) END,
        jsonb_build_object('serial_key', t.serial_key, 'held_by', ahead.id));
END $$;


-- Pending: it could run, so it is about who might run it.

-- A label or name that the configuration keeps from running, or that runs as often as it may.
CREATE FUNCTION asynctaskd.why_held_back(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
DECLARE
    config asynctaskd.runtime_configs := asynctaskd.config_in_force();
    own text[] := string_to_array(t.label_set, ',');
    label text;
    running bigint;
    holders jsonb;
BEGIN
    IF t.name = ANY (config.paused_names) THEN
        RETURN asynctaskd.because(
            'name_paused', format('its name %s is paused by version %s of the runtime configuration', t.name, config.version),
            'take the name out of paused_names', jsonb_build_object('name', t.name));
    END IF;
    SELECT paused INTO label FROM unnest(config.paused_labels) AS paused WHERE paused = ANY (own) LIMIT 1;
    IF FOUND THEN
        RETURN asynctaskd.because(
            'label_paused', format('its label %s is paused by version %s of the runtime configuration', label, config.version),
            'take the label out of paused_labels', jsonb_build_object('label', label));
    END IF;
    FOREACH label IN ARRAY own LOOP
        CONTINUE WHEN config.limits ->> label IS NULL;
        SELECT count(*), to_jsonb((array_agg(id ORDER BY claimed_at))[1:5]) INTO running, holders
        FROM asynctaskd.tasks
        WHERE worker_id IS NOT NULL AND label = ANY (string_to_array(label_set, ','));
        IF running >= (config.limits ->> label)::integer THEN
            RETURN asynctaskd.because(
                'limit', format('its label %s is at its limit: %s of %s run', label, running, config.limits ->> label),
                CASE WHEN (config.limits ->> label)::integer = 0 THEN 'raise the limit: at 0 none begins'
                     ELSE format('raise the limit, or wait for one of theirs; the oldest is task %s', holders -> 0) END,
                jsonb_build_object('label', label, 'limit', config.limits -> label, 'running', running, 'held_by', holders));
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

-- No live worker, or none that may run it.
CREATE FUNCTION asynctaskd.why_nobody(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
DECLARE
    own text[] := string_to_array(t.label_set, ',');
    live bigint;
    fitting bigint;
    knowing bigint;
    missing text[];
BEGIN
    SELECT count(*), count(*) FILTER (WHERE own <@ labels), count(*) FILTER (WHERE own <@ labels AND asynctaskd.knows(names, t.name))
    INTO live, fitting, knowing
    FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w);
    IF live = 0 THEN
        RETURN asynctaskd.because('no_worker', 'no worker is live', 'start one: asynctaskd run --app …');
    ELSIF fitting = 0 THEN
        missing := ARRAY(SELECT label FROM unnest(own) AS label WHERE NOT EXISTS (
            SELECT FROM asynctaskd.workers AS w WHERE label = ANY (w.labels) AND asynctaskd.is_live(w)));
        RETURN asynctaskd.because(
            'labels', format('no live worker has all of its labels %s%s', array_to_string(own, ', '),
                             coalesce('; none has ' || nullif(array_to_string(missing, ', '), ''), '')),
            'give a worker these labels (--labels)', jsonb_build_object('labels', own, 'missing', missing));
    ELSIF knowing = 0 THEN
        RETURN asynctaskd.because(
            'unknown_name', format('no live worker that has its labels knows the name %s', t.name),
            'start a worker whose App declares that name', jsonb_build_object('name', t.name));
    END IF;
    RETURN NULL;
END $$;

-- Whoever might run it has no room. Counted by rows: what workers say of themselves is up to one renewal old.
CREATE FUNCTION asynctaskd.why_no_room(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
DECLARE
    config asynctaskd.runtime_configs := asynctaskd.config_in_force();
    own text[] := string_to_array(t.label_set, ',');
    room bigint;
    strict_room bigint;
    eligible jsonb;
    group_name text;
    group_weight integer;
    ahead bigint;
BEGIN
    SELECT count(*) FILTER (WHERE running < concurrency),
           count(*) FILTER (WHERE running < concurrency AND strict < cap),
           jsonb_agg(jsonb_build_object('worker_id', id, 'running', running, 'concurrency', concurrency,
                                        'strict', strict, 'strict_cap', cap) ORDER BY id)
    INTO room, strict_room, eligible
    FROM (
        SELECT w.id, w.concurrency, held.running, held.strict,
               ceil(w.concurrency * coalesce(config.max_strict_percentage, w.max_strict_percentage, 100) / 100.0)::integer AS cap
        FROM asynctaskd.workers AS w CROSS JOIN LATERAL (
            SELECT count(*) AS running, count(*) FILTER (WHERE priority > 0) AS strict
            FROM asynctaskd.tasks WHERE worker_id = w.id) AS held
        WHERE own <@ w.labels AND asynctaskd.knows(w.names, t.name) AND asynctaskd.is_live(w)
    ) AS workers;
    IF t.priority > 0 THEN
        IF strict_room > 0 THEN
            RETURN NULL;
        END IF;
        RETURN asynctaskd.because(
            'strict_cap', 'the strict lane is full on each worker that may run it: '
                || (SELECT string_agg(format('%s of %s on %s', one ->> 'strict', one ->> 'strict_cap',
                                             left(one ->> 'worker_id', 8)), ', ')
                    FROM jsonb_array_elements(eligible) AS one),
            'raise max_strict_percentage, or add workers', jsonb_build_object('workers', eligible));
    ELSIF room > 0 THEN
        RETURN NULL;
    END IF;
    SELECT label, (config.weights ->> label)::integer INTO group_name, group_weight
    FROM unnest(own COLLATE "C") AS label WHERE config.weights ? label ORDER BY label LIMIT 1;
    group_name := coalesce(group_name, 'default');
    group_weight := coalesce(group_weight, config.default_weight, 1);
    SELECT count(*) INTO ahead FROM (
        SELECT FROM asynctaskd.tasks AS other
        WHERE other.status = 'pending' AND other.losses < 2 AND other.priority = 0 AND other.label_set = t.label_set
          AND (-other.weight, other.id) < (-t.weight, t.id)
        ORDER BY -other.weight, other.id LIMIT 1001) AS those;
    RETURN asynctaskd.because(
        'in_line', format('every slot is taken on each worker that may run it; its group %s has weight %s of %s, and %s tasks '
                          'with the same labels are ahead of it', group_name, group_weight,
                          coalesce(config.default_weight, 1) + coalesce(
                              (SELECT sum(value::integer) FROM jsonb_each_text(config.weights)), 0),
                          CASE WHEN ahead > 1000 THEN 'more than 1000' ELSE ahead::text END),
        'add workers, give the group more weight, or the task a priority',
        jsonb_build_object('group', group_name, 'weight', group_weight, 'ahead', ahead, 'workers', eligible));
END $$;

CREATE FUNCTION asynctaskd.why_pending(t asynctaskd.tasks) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE AS $$
DECLARE
    found asynctaskd.reason;
    age interval := asynctaskd.clock() - greatest(t.created_at, t.run_at);
BEGIN
    IF t.label_set = '!control' THEN
        RETURN asynctaskd.because('control', 'it is a control task, which the next free worker takes at once');
    END IF;
    found := asynctaskd.why_held_back(t);
    IF found.reason IS NULL THEN
        found := asynctaskd.why_nobody(t);
    END IF;
    IF found.reason IS NULL AND (t.reason = 'quarantined' OR t.reason LIKE 'failed_by_operator%') THEN
        RETURN asynctaskd.because('hook', format('it has failed (%s), and waits for a worker to run its failure hook', t.reason));
    ELSIF found.reason IS NULL AND t.losses >= 2 THEN
        RETURN asynctaskd.because(
            'suspect', format('its worker was lost %s times in a row while it ran: it runs in a process of its own, one such '
                              'task at a time', t.losses));
    END IF;
    IF found.reason IS NULL THEN
        found := asynctaskd.why_no_room(t);
    END IF;
    IF found.reason IS NOT NULL THEN
        RETURN found;
    ELSIF age < interval '2 s' THEN
        RETURN asynctaskd.because('starting', 'a worker that may run it has a free slot: it starts within a second');
    END IF;
    RETURN asynctaskd.because(
        'defect', format('nothing keeps it: a worker that may run it has a free slot, and it has waited for %s s',
                         round(extract(epoch FROM age))),
        'this should not be: please report it, with the workers'' logs of that time');
END $$;

-- The one reason why a task isn't running; NULL where there is no such task.
CREATE FUNCTION asynctaskd.why(task bigint, whatever_its_time boolean DEFAULT false) RETURNS asynctaskd.reason
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    t asynctaskd.tasks;
BEGIN
    SELECT * INTO t FROM asynctaskd.tasks WHERE id = task;
    IF whatever_its_time AND t.status = 'scheduled' AND t.reason IS DISTINCT FROM 'unknown_name' THEN
        RETURN asynctaskd.why_pending(t);
    END IF;
    RETURN CASE t.status
        WHEN 'running' THEN asynctaskd.why_running(t)
        WHEN 'paused' THEN asynctaskd.why_paused(t)
        WHEN 'scheduled' THEN asynctaskd.why_scheduled(t)
        WHEN 'waiting' THEN asynctaskd.why_waiting(t)
        WHEN 'pending' THEN asynctaskd.why_pending(t)
        ELSE asynctaskd.why_ended(task)
    END;
END $$;

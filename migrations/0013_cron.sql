-- schema 1.11
--
-- Cron: schedules, a ledger with a row per slot, and the one statement that makes a slot's row and its task.

CREATE TABLE asynctaskd.schedules (
    name text PRIMARY KEY CHECK (asynctaskd.is_name(name)),
    task text NOT NULL CHECK (asynctaskd.is_name(task)),
    expression text NOT NULL,
    zone text NOT NULL DEFAULT 'UTC',
    params jsonb NOT NULL DEFAULT '{}',
    -- What each task is enqueued with, by the names of `enqueue`.
    options jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(options) = 'object'),
    missed text NOT NULL DEFAULT 'once' CHECK (missed IN ('skip', 'once', 'all')),
    missed_limit integer NOT NULL DEFAULT 100 CHECK (missed_limit BETWEEN 1 AND 1000),
    overlap text NOT NULL DEFAULT 'skip' CHECK (overlap IN ('skip', 'allow')),
    -- Of what an App declared last: whoever starts with the same leaves the row alone. NULL: nobody declared it.
    declared_hash text,
    -- The processes that declare it; those that ended are forgotten at the next start.
    declared_by uuid[] NOT NULL DEFAULT '{}',
    -- Slots count from here: created, resumed, or changed in what it is due by.
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The slot that is decided next. NULL: the next worker that looks has to compute it.
    next_at timestamptz,
    last_slot timestamptz,
    last_task bigint,
    -- The id that an enqueue was given for the first slot's task.
    reserved_task bigint,
    paused_at timestamptz,
    -- Why a worker paused it; NULL where somebody else did.
    paused_because text,
    -- Grows with every change, so that nobody decides a slot by what it was before.
    revision bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX schedules_due ON asynctaskd.schedules ((coalesce(next_at, '-infinity'))) WHERE paused_at IS NULL;

-- The ledger. It has no foreign key: what was decided stays, also where its schedule is gone or made anew.
CREATE TABLE asynctaskd.schedule_slots (
    schedule text NOT NULL,
    slot timestamptz NOT NULL,
    task_id bigint,
    outcome text NOT NULL CHECK (outcome IN ('ran', 'late', 'skipped')),
    reason text,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (schedule, slot),
    CHECK ((outcome = 'skipped') = (task_id IS NULL))
);
CREATE INDEX schedule_slots_age ON asynctaskd.schedule_slots (slot);


-- What is wrong with an expression as far as SQL can tell, in words, or NULL; the rest is for the worker.
CREATE FUNCTION asynctaskd.cron_problem(expression text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN expression IS NULL THEN 'cron must not be NULL'
    WHEN length(expression) > 512 THEN 'cron must have at most 512 characters'
    WHEN expression !~* ('^[ \t]*(@(yearly|annually|monthly|weekly|daily|midnight|hourly|every[ \t]+[0-9a-z]+)|'
                         '[0-9a-z*,/-]+([ \t]+[0-9a-z*,/-]+){4,5})[ \t]*$') THEN
        format('cron must have six fields, seconds first, or five without them, or be such as @daily or '
               '''@every 10m'', got %L', expression)
END;

-- What is wrong with how a schedule goes about its slots, in words, or NULL; what isn't given breaks no rule.
CREATE FUNCTION asynctaskd.slots_problem(given jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN given ->> 'missed' NOT IN ('skip', 'once', 'all') THEN
        format('missed must be skip or once or all, got %s', asynctaskd.shown(given -> 'missed'))
    WHEN given ->> 'overlap' NOT IN ('skip', 'allow') THEN
        format('overlap must be skip or allow, got %s', asynctaskd.shown(given -> 'overlap'))
    WHEN given ->> 'missed_limit' IS NOT NULL THEN
        asynctaskd.integer_problem('missed_limit', given -> 'missed_limit', 1, 1000)
END;

-- What is wrong with the options of a schedule, in words, or NULL.
CREATE FUNCTION asynctaskd.schedule_problem(task text, params jsonb, options jsonb) RETURNS text
LANGUAGE plpgsql STABLE AS $$
DECLARE
    unfit text;
BEGIN
    IF jsonb_typeof(options) <> 'object' THEN
        RETURN 'the options of a schedule must be an object';
    END IF;
    SELECT key INTO unfit FROM jsonb_object_keys(options) AS key
    WHERE key <> ALL ('{priority,weight,labels,tags,serial_key,delay,deadline_after,timeout,retry,max_attempts,keep,'
                      'metadata}'::text[]) LIMIT 1;
    IF unfit IS NOT NULL THEN
        RETURN format('option %L doesn''t go with a schedule, which enqueues one task after another', unfit);
    END IF;
    RETURN asynctaskd.problem_of_one(
        task, params, (options ->> 'priority')::integer, (options ->> 'weight')::integer,
        asynctaskd.labels_of(options), options);
END $$;

-- The labels among the options of a schedule as `enqueue_many` takes them: joined by commas, or NULL.
CREATE FUNCTION asynctaskd.labels_of(options jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(options -> 'labels') = 'array'
            THEN array_to_string(ARRAY(SELECT jsonb_array_elements_text(options -> 'labels')), ',') END;

-- A schedule there is none of yet, or a change of one; NULL leaves a value as it is, or as the table has it. Given
-- options are added to those there are. Tells the workers. Returns the schedule's name.
CREATE FUNCTION asynctaskd.put_schedule(
    name text,
    is_new boolean DEFAULT NULL,
    task text DEFAULT NULL,
    expression text DEFAULT NULL,
    zone text DEFAULT NULL,
    params jsonb DEFAULT NULL,
    options jsonb DEFAULT NULL,
    missed text DEFAULT NULL,
    missed_limit integer DEFAULT NULL,
    overlap text DEFAULT NULL
) RETURNS text
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s asynctaskd.schedules;
    problem text := asynctaskd.slots_problem(
        jsonb_build_object('missed', missed, 'missed_limit', missed_limit, 'overlap', overlap));
BEGIN
    IF asynctaskd.is_name(put_schedule.name) IS NOT TRUE OR asynctaskd.is_name(put_schedule.task) IS FALSE THEN
        RAISE EXCEPTION 'the name of a schedule and of its task must match [A-Za-z0-9_.:/-]{1,128}, got %, %',
            quote_nullable(put_schedule.name), quote_nullable(put_schedule.task) USING ERRCODE = 'ATD01';
    END IF;
    INSERT INTO asynctaskd.schedules AS t (name, task, expression)
    SELECT put_schedule.name, coalesce(put_schedule.task, put_schedule.name), put_schedule.expression
    WHERE is_new IS NOT FALSE AND put_schedule.expression IS NOT NULL
    ON CONFLICT (name) DO NOTHING;
    IF NOT FOUND AND is_new THEN
        RAISE EXCEPTION 'there is a schedule % already', quote_literal(put_schedule.name) USING ERRCODE = 'ATD04';
    END IF;
    SELECT * INTO s FROM asynctaskd.schedules AS t WHERE t.name = put_schedule.name FOR UPDATE;
    IF s.name IS NULL THEN
        RAISE EXCEPTION 'there is no schedule %', quote_literal(put_schedule.name) USING ERRCODE = 'ATD04';
    END IF;
    problem := coalesce(
        problem,
        CASE WHEN put_schedule.expression IS NOT NULL THEN asynctaskd.cron_problem(put_schedule.expression) END,
        asynctaskd.schedule_problem(coalesce(put_schedule.task, s.task), coalesce(put_schedule.params, s.params),
                                    s.options || coalesce(put_schedule.options, '{}')));
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    UPDATE asynctaskd.schedules AS t
    SET task = coalesce(put_schedule.task, s.task), expression = coalesce(put_schedule.expression, s.expression),
        zone = coalesce(put_schedule.zone, s.zone), params = coalesce(put_schedule.params, s.params),
        options = s.options || coalesce(put_schedule.options, '{}'),
        missed = coalesce(put_schedule.missed, s.missed),
        missed_limit = coalesce(put_schedule.missed_limit, s.missed_limit),
        overlap = coalesce(put_schedule.overlap, s.overlap)
    WHERE t.name = s.name;
    PERFORM asynctaskd.note_changed_schedule(s);
    RETURN s.name;
END $$;

-- What follows from a change: `before` is the row as it was. It is due by the new expression from now on, what a
-- worker had refused may be looked at again, and the workers are told.
CREATE FUNCTION asynctaskd.note_changed_schedule(before asynctaskd.schedules) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE asynctaskd.schedules AS t
    SET revision = t.revision + 1, updated_at = asynctaskd.clock(),
        paused_at = CASE WHEN before.paused_because IS NULL THEN t.paused_at END, paused_because = NULL
    WHERE name = before.name;
    UPDATE asynctaskd.schedules AS t SET next_at = NULL, since = asynctaskd.clock()
    WHERE name = before.name
      AND (t.expression, t.zone, t.paused_at) IS DISTINCT FROM (before.expression, before.zone, before.paused_at);
    PERFORM pg_notify('asynctaskd_schedules', '');
END $$;

-- Pauses a schedule: it has no slots until it is resumed. `because` is a worker's reason.
CREATE FUNCTION asynctaskd.pause_schedule(
    name text, because text DEFAULT NULL, at_revision bigint DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    UPDATE asynctaskd.schedules AS t
    SET paused_at = coalesce(t.paused_at, asynctaskd.clock()), paused_because = because, next_at = NULL,
        revision = t.revision + 1, updated_at = asynctaskd.clock()
    WHERE t.name = pause_schedule.name AND (at_revision IS NULL OR t.revision = at_revision);
    RETURN FOUND;
END $$;

-- Resumes a schedule: its slots count from now on.
CREATE FUNCTION asynctaskd.resume_schedule(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s asynctaskd.schedules;
BEGIN
    SELECT * INTO s FROM asynctaskd.schedules AS t WHERE t.name = resume_schedule.name FOR UPDATE;
    IF s.paused_at IS NOT NULL THEN
        UPDATE asynctaskd.schedules AS t SET paused_at = NULL WHERE t.name = s.name;
        PERFORM asynctaskd.note_changed_schedule(s);
    END IF;
    RETURN s.name IS NOT NULL;
END $$;

-- Removes a schedule; what it has enqueued goes on, and the ledger stays.
CREATE FUNCTION asynctaskd.remove_schedule(name text) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    DELETE FROM asynctaskd.schedules AS t WHERE t.name = remove_schedule.name;
    RETURN FOUND;
END $$;

-- The option `cron` of an enqueue: creates the schedule of that task's name, or changes it. Returns the id that its
-- next task will have. `settings` are options of the tasks, and `zone`, `missed`, `missed_limit` and `overlap`.
CREATE FUNCTION asynctaskd.schedule_by_enqueue(name text, payload jsonb, cron text, settings jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    given jsonb := asynctaskd.said(coalesce(settings, '{}'));
    reserved bigint;
    problem text := coalesce(asynctaskd.cron_problem(cron), asynctaskd.slots_problem(given));
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    PERFORM asynctaskd.put_schedule(
        schedule_by_enqueue.name, NULL, schedule_by_enqueue.name, cron, given ->> 'zone', payload,
        given - '{zone,missed,missed_limit,overlap}'::text[], given ->> 'missed',
        (given ->> 'missed_limit')::integer, given ->> 'overlap');
    UPDATE asynctaskd.schedules AS t
    SET reserved_task = coalesce(t.reserved_task, nextval('asynctaskd.task_ids'))
    WHERE t.name = schedule_by_enqueue.name RETURNING t.reserved_task INTO reserved;
    RETURN reserved;
END $$;


-- Slots.

-- What keeps a new slot from running, in words, or NULL. A task of the last one that only waits for its retry gives
-- way: it is cancelled.
CREATE FUNCTION asynctaskd.overlap_problem(last_task bigint, new_slot timestamptz) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    t asynctaskd.tasks;
BEGIN
    IF NOT EXISTS (SELECT FROM asynctaskd.tasks WHERE id = last_task) THEN
        RETURN NULL;
    END IF;
    SELECT * INTO t FROM asynctaskd.tasks WHERE id = last_task FOR UPDATE SKIP LOCKED;
    IF t.id IS NULL THEN
        -- Somebody claims or finishes it at this moment, or a failure hook is at work.
        RETURN (SELECT format('task %s is still %s', last_task, status) FROM asynctaskd.tasks WHERE id = last_task);
    ELSIF t.status = 'scheduled' AND t.failures > 0 AND t.reason IS NOT NULL AND t.reason <> 'unknown_name' THEN
        PERFORM asynctaskd.finish(
            ARRAY[last_task], 'cancelled',
            'superseded by slot ' || to_char(new_slot AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
        RETURN NULL;
    END IF;
    RETURN format('task %s is still %s', last_task, t.status);
END $$;

-- Enqueues a slot's task; returns its id.
CREATE FUNCTION asynctaskd.enqueue_slot(s asynctaskd.schedules, params jsonb, encoded boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
BEGIN
    ids := asynctaskd.enqueue_many(
        ARRAY[s.task], ARRAY[params], ARRAY[(s.options ->> 'priority')::integer],
        ARRAY[(s.options ->> 'weight')::integer], ARRAY[asynctaskd.labels_of(s.options)],
        ARRAY[s.options - '{priority,weight,labels}'::text[]
              || CASE WHEN encoded THEN '{"encoded": true}'::jsonb ELSE '{}' END]);
    IF s.reserved_task IS NULL THEN
        RETURN ids[1];
    END IF;
    -- Nobody has seen it yet: it may still take the id that was promised.
    UPDATE asynctaskd.tasks SET id = s.reserved_task WHERE id = ids[1];
    RETURN s.reserved_task;
END $$;

-- Decides slots of a schedule and moves on to the next one, in one transaction: each slot's row in the ledger, and its
-- task. Nothing happens where the schedule isn't as the caller saw it, or another worker has it in hand. `slots` is an
-- array of objects: slot, outcome, reason, params, encoded. Returns what became of each.
--
-- The primary key of the ledger is the promise of one task per slot; that `next_at` is still the one that the caller
-- saw keeps those who come second from trying.
CREATE FUNCTION asynctaskd.decide_slots(
    schedule text, at_revision bigint, seen timestamptz, following timestamptz, slots jsonb
) RETURNS SETOF asynctaskd.schedule_slots
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    s asynctaskd.schedules;
    asked record;
    decided asynctaskd.schedule_slots;
BEGIN
    SELECT * INTO s FROM asynctaskd.schedules AS t
    WHERE t.name = decide_slots.schedule AND t.revision = at_revision AND t.next_at = seen
      AND t.paused_at IS NULL AND seen <= asynctaskd.clock()
    FOR UPDATE SKIP LOCKED;
    IF s.name IS NULL THEN
        RETURN;
    END IF;
    FOR asked IN SELECT * FROM jsonb_to_recordset(slots) 
                     AS a(slot timestamptz, outcome text, reason text, params jsonb, encoded boolean)
                 ORDER BY slot
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM asynctaskd.schedule_slots AS l
                              WHERE l.schedule = s.name AND l.slot = asked.slot);
        decided := ROW(s.name, asked.slot, NULL, asked.outcome, asked.reason, asynctaskd.clock());
        IF asked.outcome <> 'skipped' AND s.overlap = 'skip' AND NOT (asked.outcome = 'late' AND s.missed = 'all') THEN
            decided.reason := asynctaskd.overlap_problem(s.last_task, asked.slot);
            decided.outcome := CASE WHEN decided.reason IS NULL THEN asked.outcome ELSE 'skipped' END;
            decided.reason := coalesce(decided.reason, asked.reason);
        END IF;
        IF decided.outcome <> 'skipped' THEN
            BEGIN
                decided.task_id := asynctaskd.enqueue_slot(s, asked.params, asked.encoded);
                s.last_task := decided.task_id;
                s.reserved_task := NULL;
            EXCEPTION WHEN SQLSTATE 'ATD01' OR SQLSTATE 'ATD02' OR SQLSTATE 'ATD03' OR SQLSTATE 'ATD04' THEN
                decided.outcome := 'skipped';
                decided.reason := SQLERRM;
            END;
        END IF;
        INSERT INTO asynctaskd.schedule_slots VALUES (decided.*);
        s.last_slot := asked.slot;
        RETURN NEXT decided;
    END LOOP;
    UPDATE asynctaskd.schedules AS t
    SET next_at = following, last_slot = s.last_slot, last_task = s.last_task, reserved_task = s.reserved_task
    WHERE t.name = s.name;
END $$;

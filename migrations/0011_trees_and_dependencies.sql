-- schema 1.9
--
-- Trees that can be paused and cancelled as a whole, and tasks that wait for others.

ALTER TABLE asynctaskd.tasks
    -- Where an operator wants a running task to go (cancelled, paused, expired, failed), and by which command.
    ADD COLUMN requested text,
    ADD COLUMN request_id uuid;

-- All live tasks of a tree: its root is what commands lock, and what they begin with.
DROP INDEX asynctaskd.tasks_children;
CREATE INDEX tasks_tree ON asynctaskd.tasks (root_id, parent_id) WHERE root_id IS NOT NULL;

-- What a task waits for: the ids among its `depends_on` that haven't completed yet. A table of its own, so that
-- finalize never waits for an enqueuer's open transaction, and costs nothing for tasks that nobody waits for.
CREATE TABLE asynctaskd.dependencies (
    depends_on bigint NOT NULL,
    task_id bigint NOT NULL,
    PRIMARY KEY (depends_on, task_id)
);
CREATE INDEX dependencies_task ON asynctaskd.dependencies (task_id);


-- Trees.

-- The key of a tree's advisory lock. A command may concern any number of trees, and a server has room for some
-- thousand locks: trees share 1,024 of them.
CREATE FUNCTION asynctaskd.tree_key(root bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashint8(root) & 1023;

-- How many commands were given on the trees of each key. An enqueue whose snapshot is older than such a command sees
-- here that it is.
CREATE TABLE asynctaskd.trees (
    key integer PRIMARY KEY,
    commands bigint NOT NULL DEFAULT 0
);
INSERT INTO asynctaskd.trees (key) SELECT generate_series(0, 1023);

-- The root of a parent's tree, locked against a cancel or pause of that tree until commit.
CREATE OR REPLACE FUNCTION asynctaskd.lock_root(parent bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    root bigint;
BEGIN
    SELECT coalesce(root_id, id) INTO root FROM asynctaskd.tasks WHERE id = parent;
    IF NOT FOUND THEN
        SELECT coalesce(root_id, id) INTO root FROM asynctaskd.finished_tasks WHERE id = parent;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'parent_id % is not a task, or its record was already forgotten', parent
            USING ERRCODE = 'ATD02', HINT = 'Enqueue the parent first; a task can''t be its own ancestor.';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtext('asynctaskd.tree'), asynctaskd.tree_key(root));
    IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
        -- The lock makes one wait for the other, but what comes second sees its ancestors as they were before: a 40001
        -- if a command came since. Not by a lock on the ancestors: their workers would wait for this transaction.
        PERFORM FROM asynctaskd.trees WHERE key = asynctaskd.tree_key(root) FOR SHARE;
    END IF;
    RETURN root;
END $$;

-- How a child of this task is born: `cancelled`, `paused`, or (NULL) as it is meant to be. The nearest live ancestor
-- decides: what was asked of those above has reached it too, unless it was left out, resumed or retried. So a chain may
-- grow for ever, each task enqueueing the next.
CREATE FUNCTION asynctaskd.born_as(parent bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    node bigint := parent;
    state text;
BEGIN
    WHILE node IS NOT NULL LOOP
        SELECT coalesce(requested, CASE WHEN reason <> 'name paused' THEN status END) INTO state
        FROM asynctaskd.tasks WHERE id = node;
        IF FOUND THEN
            RETURN CASE WHEN state IN ('cancelled', 'paused') THEN state END;
        END IF;
        SELECT parent_id, status INTO node, state FROM asynctaskd.finished_tasks WHERE id = node;
        IF state = 'cancelled' THEN
            RETURN state;
        END IF;
    END LOOP;  -- to the root, or to one whose record was forgotten
    RETURN NULL;
END $$;

-- Nobody asks `is_cancelled` any more, but it stays: an enqueue that waits while this is applied goes on as it began.

-- These tasks and all their live descendants, their trees locked against new children until commit. Descendants of a
-- finished task count too; whose line of ancestors was forgotten belongs to the root alone.
CREATE FUNCTION asynctaskd.with_descendants(ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    roots bigint[] := ARRAY(
        SELECT coalesce(root_id, id) FROM asynctaskd.tasks WHERE id = ANY (ids)
        UNION
        SELECT coalesce(root_id, id) FROM asynctaskd.finished_tasks WHERE id = ANY (ids));
    keys integer[] := ARRAY(SELECT DISTINCT asynctaskd.tree_key(root) AS key FROM unnest(roots) AS root ORDER BY key);
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.tree'), key) FROM unnest(keys) AS key;
    UPDATE asynctaskd.trees SET commands = commands + 1 WHERE key = ANY (keys);
    RETURN ARRAY(
        WITH RECURSIVE line (member, ancestor) AS (
            SELECT id, parent_id FROM asynctaskd.tasks WHERE root_id = ANY (roots) AND root_id <> ALL (ids)
            UNION ALL
            SELECT line.member, up.parent_id
            FROM line CROSS JOIN LATERAL (
                SELECT parent_id FROM asynctaskd.tasks WHERE id = line.ancestor
                UNION ALL
                SELECT parent_id FROM asynctaskd.finished_tasks WHERE id = line.ancestor) AS up
            WHERE line.ancestor <> ALL (ids)
        )
        SELECT unnest(ids)
        UNION
        SELECT id FROM asynctaskd.tasks WHERE root_id = ANY (ids)
        UNION
        SELECT member FROM line WHERE ancestor = ANY (ids));
END $$;


-- Serial lines. Who still depends on something isn't in the way of its key-mates.

CREATE FUNCTION asynctaskd.depends(task bigint) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN EXISTS (SELECT FROM asynctaskd.dependencies WHERE task_id = task);

CREATE OR REPLACE FUNCTION asynctaskd.goes_first(key text, newcomer_id bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    head asynctaskd.tasks;
BEGIN
    SELECT * INTO head FROM asynctaskd.tasks
    WHERE serial_key = key AND status IN ('pending', 'scheduled', 'running');
    IF FOUND AND (head.status = 'running' OR newcomer_id IS NULL OR newcomer_id >= head.serial_id) THEN
        RETURN false;
    ELSIF EXISTS (  -- looked at before the lock is taken: it would keep the line from moving until commit
        SELECT FROM asynctaskd.tasks WHERE serial_key = key AND status = 'waiting'
               AND (newcomer_id IS NULL OR serial_id <= newcomer_id) AND NOT asynctaskd.depends(id)) THEN
        RETURN false;
    ELSIF NOT pg_try_advisory_xact_lock(hashtext('asynctaskd.serial_key'), hashtext(key)) THEN
        RETURN false;
    END IF;
    UPDATE asynctaskd.tasks SET status = 'waiting'
    WHERE serial_key = key AND status IN ('pending', 'scheduled') AND newcomer_id IS NOT NULL
      AND (serial_id IS NULL OR serial_id > newcomer_id);
    IF EXISTS (SELECT FROM asynctaskd.tasks WHERE serial_key = key AND status = 'waiting'
               AND (newcomer_id IS NULL OR serial_id <= newcomer_id) AND NOT asynctaskd.depends(id)) THEN
        -- It has come since the lock was taken, and waits only because of that lock.
        PERFORM asynctaskd.promote_lines(ARRAY[key]);
        RETURN false;
    END IF;
    RETURN NOT EXISTS (
        SELECT FROM asynctaskd.tasks WHERE serial_key = key AND status IN ('pending', 'scheduled', 'running'));
END $$;

CREATE OR REPLACE FUNCTION asynctaskd.promote_line(key text) RETURNS TABLE (label_set text, status text)
LANGUAGE plpgsql ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('asynctaskd.serial_key'), hashtext(key)) THEN
        RETURN;
    END IF;
    RETURN QUERY
    UPDATE asynctaskd.tasks
    SET status = CASE WHEN run_at > asynctaskd.clock() THEN 'scheduled' ELSE 'pending' END
    WHERE id = (SELECT t.id FROM asynctaskd.tasks AS t
                WHERE t.serial_key = key AND t.status = 'waiting' AND NOT asynctaskd.depends(t.id)
                ORDER BY t.serial_id, t.id LIMIT 1 FOR UPDATE SKIP LOCKED)
      AND NOT EXISTS (SELECT FROM asynctaskd.tasks AS head
                      WHERE head.serial_key = key AND head.status IN ('pending', 'scheduled', 'running'))
    RETURNING label_set, status;
END $$;

-- Lets the first of each of these lines go where nobody is ahead, and tells whoever could run them.
CREATE FUNCTION asynctaskd.promote_lines(keys text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM asynctaskd.announce(array_agg(DISTINCT line.label_set))
    FROM unnest(keys) AS key CROSS JOIN LATERAL asynctaskd.promote_line(key) AS line
    WHERE line.status = 'pending'
    HAVING count(*) > 0;
END $$;

-- Puts tasks that rest (paused, or waiting for what is over) where they belong now, and tells whoever could run them.
CREATE FUNCTION asynctaskd.set_going(ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    keys text[];
    label_sets text[];
BEGIN
    WITH gone AS (
        UPDATE asynctaskd.tasks
        SET status = CASE WHEN serial_key IS NOT NULL OR asynctaskd.depends(id) THEN 'waiting'
                          WHEN run_at > asynctaskd.clock() THEN 'scheduled' ELSE 'pending' END
        WHERE id = ANY (ids) AND status IN ('paused', 'waiting')
        RETURNING serial_key, label_set, status
    )
    SELECT array_agg(DISTINCT serial_key) FILTER (WHERE serial_key IS NOT NULL),
           array_agg(DISTINCT label_set) FILTER (WHERE status = 'pending')
    INTO keys, label_sets FROM gone;
    PERFORM asynctaskd.announce(label_sets);
    PERFORM asynctaskd.promote_lines(keys);
END $$;


-- Ends.

DROP FUNCTION asynctaskd.finish(bigint[], text, text);

-- Moves live tasks that aren't running to the finished ones, each with its reason; returns their ids.
CREATE FUNCTION asynctaskd.finish_each(ids bigint[], whys text[], new_status text, error text) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    moved bigint[];
    keys text[];
BEGIN
    PERFORM asynctaskd.ensure_finished_partition(day)
    FROM (SELECT DISTINCT asynctaskd.forget_day(now_is, coalesce(keep, interval '7 days')) AS day
          FROM asynctaskd.tasks WHERE id = ANY (ids)) AS days;
    WITH ended AS (
        DELETE FROM asynctaskd.tasks AS t USING unnest(ids, whys) AS asked(asked_id, why)
        WHERE t.id = ANY (ids) AND t.id = asked_id AND t.status <> 'running'
        RETURNING t.*, why, now_is AS finished_at, coalesce(t.keep, interval '7 days') AS kept
    ), archived AS (
        INSERT INTO asynctaskd.finished_tasks
               (id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
                finished_at, forget_on, priority, weight, attempts, failures, losses, max_attempts, worker_id,
                timeout, keep, status, name, label_set, tags, depends_on, unique_tag, serial_key, retry, reason,
                last_error, payload, result, progress, metadata)
        SELECT  id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
                finished_at, asynctaskd.forget_day(finished_at, kept), priority, weight, attempts, failures,
                losses, max_attempts, worker_id, timeout, keep, new_status, name, label_set, tags, depends_on,
                unique_tag, serial_key, retry, why, coalesce(error, last_error), payload, NULL, progress, metadata
        FROM ended WHERE kept > interval '0'
    ), tagged AS (
        SELECT tag, until = 'finished' OR kept = interval '0' AS freed,
               asynctaskd.forget_day(finished_at, kept) AS forget_on
        FROM ended CROSS JOIN LATERAL (
            SELECT tag, until FROM asynctaskd.unique_tags WHERE tag = unique_tag AND task_id = ended.id LIMIT 1
        ) AS held
    ), freed AS (
        DELETE FROM asynctaskd.unique_tags WHERE tag = ANY (ARRAY(SELECT tag FROM tagged WHERE freed))
    ), dated AS (
        UPDATE asynctaskd.unique_tags SET forget_on = tagged.forget_on
        FROM tagged
        WHERE unique_tags.tag = ANY (ARRAY(SELECT tag FROM tagged WHERE NOT freed)) AND unique_tags.tag = tagged.tag
    ), told AS (
        INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
        SELECT id, claim_token, claimed_at, new_status,
               jsonb_strip_nulls(jsonb_build_object('reason', why, 'error', error)) FROM ended
    )
    SELECT array_agg(id), array_agg(DISTINCT serial_key) FILTER (WHERE serial_key IS NOT NULL) INTO moved, keys
    FROM ended;
    DELETE FROM asynctaskd.dependencies WHERE task_id = ANY (moved);
    PERFORM asynctaskd.promote_lines(keys);
    RETURN coalesce(moved, '{}');
END $$;

-- Of these tasks, those that others wait for.
CREATE FUNCTION asynctaskd.awaited_of(ids bigint[]) RETURNS bigint[]
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
BEGIN
    -- With a LIMIT: of an EXISTS the planner may make a join that walks through all dependencies.
    RETURN ARRAY(SELECT id FROM unnest(ids) AS id
                 WHERE (SELECT depends_on FROM asynctaskd.dependencies WHERE depends_on = id LIMIT 1) IS NOT NULL);
END $$;

-- Tasks that wait for some of these, with the one that each waits for: so many at most, locked, and none that somebody
-- else has locked. Where they lie is where their dependencies do.
CREATE FUNCTION asynctaskd.lock_dependants(ended bigint[], most bigint)
RETURNS TABLE (id bigint, awaited bigint, place tid)
LANGUAGE plpgsql ROWS 1000 AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT t.id, over.id, d.place
    FROM unnest(ended) AS over(id)
         CROSS JOIN LATERAL (
             SELECT task_id, ctid AS place FROM asynctaskd.dependencies WHERE depends_on = over.id OFFSET 0) AS d
         -- Locked one by one, until there are enough: who is passed over must not count.
         CROSS JOIN LATERAL (
             SELECT id FROM asynctaskd.tasks WHERE id = d.task_id LIMIT 1 FOR UPDATE SKIP LOCKED) AS t
    LIMIT most;
END $$;

-- Tasks that wait for one of these, which didn't complete: they are cancelled, and so are those that wait for them.
-- However many they are, a statement must end in time: it goes so far, and says of which ended tasks some are left. The
-- poll finds those too, and comes back to a row that somebody keeps locked.
CREATE FUNCTION asynctaskd.cancel_dependants(
    ended bigint[], most bigint DEFAULT 1000, OUT cancelled bigint, OUT unsettled bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := clock_timestamp();
    batch bigint := 16;  -- with payloads of 1 MiB, a thousand take a minute
    ids bigint[];
    whys text[];
BEGIN
    cancelled := 0;
    unsettled := asynctaskd.awaited_of(ended);
    FOR turn IN 1..100 LOOP  -- a chain takes one for each of its links
        EXIT WHEN unsettled = '{}' OR cancelled >= most OR clock_timestamp() > since + interval '1 s';
        SELECT array_agg(id), array_agg(why) INTO ids, whys
        FROM (
            SELECT DISTINCT ON (id) id, format('dependency %s %s', awaited, how) AS why
            FROM (SELECT over, asynctaskd.end_of(over) AS how FROM unnest(unsettled) AS over) AS ends
                 JOIN asynctaskd.lock_dependants(unsettled, least(batch, most - cancelled)) ON awaited = over
            ORDER BY id, awaited
        ) AS dependants;
        EXIT WHEN ids IS NULL;
        ids := asynctaskd.finish_each(ids, whys, 'cancelled', NULL);
        cancelled := cancelled + cardinality(ids);
        unsettled := asynctaskd.awaited_of(unsettled || ids);
        batch := least(batch * 4, most);
    END LOOP;
END $$;

-- Moves live tasks that aren't running to the finished ones, and cancels who waits for them, as far as a statement goes;
-- the poll sees to the others. Returns how many moved.
CREATE FUNCTION asynctaskd.finish(ids bigint[], new_status text, why text, error text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    moved bigint[] := asynctaskd.finish_each(
        ids, array_fill(why, ARRAY[coalesce(cardinality(ids), 0)]), new_status, error);
BEGIN
    PERFORM asynctaskd.cancel_dependants(moved);
    RETURN cardinality(moved);
END $$;

-- Ends live tasks past their deadline that aren't running; returns how many it had the time for.
CREATE FUNCTION asynctaskd.expire(ids bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    since timestamptz := clock_timestamp();
    batch integer := 16;  -- with payloads of 1 MiB, a thousand take a minute
    seen integer := 0;
    expired bigint := 0;
BEGIN
    WHILE seen < cardinality(ids) AND clock_timestamp() < since + interval '1 s' LOOP
        expired := expired + asynctaskd.finish(ids[seen + 1:seen + batch], 'expired', 'deadline passed');
        seen := seen + batch;
        batch := batch * 4;
    END LOOP;
    RETURN expired;
END $$;

-- How a task ended; NULL while it is live. One that nobody remembers has completed, unless an event says otherwise.
CREATE FUNCTION asynctaskd.end_of(task bigint) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN NOT EXISTS (SELECT FROM asynctaskd.tasks WHERE id = task) THEN coalesce(
    (SELECT status FROM asynctaskd.finished_tasks WHERE id = task LIMIT 1),
    (SELECT CASE kind WHEN 'quarantined' THEN 'failed' ELSE kind END FROM asynctaskd.task_events
     WHERE task_id = task AND kind IN ('failed', 'quarantined', 'cancelled', 'expired') ORDER BY id DESC LIMIT 1),
    'completed') END;

-- What follows from the end of these tasks for those that wait for them: they go, or are cancelled; so many at most of
-- either kind. Returns how many, and which ended tasks have others left that wait for them.
CREATE FUNCTION asynctaskd.settle_dependencies(
    ended bigint[], most bigint DEFAULT 1000, OUT settled bigint, OUT unsettled bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    done bigint[];
    broken bigint[];
    held bigint[];
    places tid[];
BEGIN
    settled := 0;
    SELECT array_agg(id) FILTER (WHERE how = 'completed'), array_agg(id) FILTER (WHERE how <> 'completed')
    INTO done, broken
    FROM unnest(asynctaskd.awaited_of(ended)) AS id CROSS JOIN LATERAL asynctaskd.end_of(id) AS how;
    IF broken IS NOT NULL THEN
        SELECT * INTO settled, broken FROM asynctaskd.cancel_dependants(broken, most);
    END IF;
    IF done IS NOT NULL THEN
        -- Of two dependencies that end at the same moment neither sees the other gone, unless they take turns.
        SELECT array_agg(id), array_agg(place) INTO held, places FROM asynctaskd.lock_dependants(done, most);
        -- By where they lie, since nobody else removes what a locked task waits for: by both columns, the index may be
        -- asked for each of one with each of the other.
        DELETE FROM asynctaskd.dependencies WHERE ctid = ANY (places);
        PERFORM asynctaskd.set_going(ARRAY(
            SELECT id FROM asynctaskd.tasks
            WHERE id = ANY (held) AND status = 'waiting' AND NOT asynctaskd.depends(id)));
        settled := settled + coalesce(cardinality(held), 0);
        done := asynctaskd.awaited_of(done);
    END IF;
    -- The first may have more dependants than one call sees to: the others go before it the next time.
    unsettled := coalesce(broken[2:] || done[2:] || broken[:1] || done[:1], '{}');
END $$;


-- The one way in.

-- The rows of what a new task waits for; `broken` is the first one that ended otherwise than completed.
CREATE FUNCTION asynctaskd.add_dependencies(task bigint, wanted bigint[], OUT waits boolean, OUT broken text)
LANGUAGE plpgsql AS $$
DECLARE
    missing bigint;
BEGIN
    SELECT w.id INTO missing FROM unnest(wanted) AS w(id)
    WHERE w.id IS NULL OR NOT EXISTS (SELECT FROM asynctaskd.tasks AS t WHERE t.id = w.id)
                      AND NOT EXISTS (SELECT FROM asynctaskd.finished_tasks AS f WHERE f.id = w.id)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'depends_on % is not a task, or its record was already forgotten', coalesce(missing::text, 'NULL')
            USING ERRCODE = 'ATD02', HINT = 'Enqueue first what a task depends on.';
    END IF;
    SELECT format('dependency %s %s', id, how) INTO broken
    FROM unnest(wanted) AS id CROSS JOIN LATERAL asynctaskd.end_of(id) AS how WHERE how <> 'completed' LIMIT 1;
    -- Workers ask after every end who waited for it, but only while they know that anybody does.
    IF NOT EXISTS (SELECT FROM asynctaskd.dependencies) THEN
        PERFORM pg_notify('asynctaskd_ready', '!awaited');
    END IF;
    INSERT INTO asynctaskd.dependencies (depends_on, task_id)
    SELECT DISTINCT id, task FROM unnest(wanted) AS id WHERE broken IS NULL AND asynctaskd.end_of(id) IS NULL;
    waits := FOUND;
END $$;

-- An object without those of its own keys that say nothing; what its values hold stays as it is.
CREATE FUNCTION asynctaskd.said(object jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
RETURN (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(object) WHERE value <> 'null');

-- What the route with the longest prefix of a name says, for names that have no definition of their own: routes are
-- definitions whose name is a prefix and a *.
CREATE INDEX definitions_routes ON asynctaskd.definitions (name) WHERE name LIKE '%*';
CREATE FUNCTION asynctaskd.route_of(task_name text) RETURNS asynctaskd.definitions
LANGUAGE sql STABLE AS $$
    SELECT d FROM asynctaskd.definitions AS d
    WHERE d.name LIKE '%*' AND starts_with(task_name, left(d.name, -1)) ORDER BY length(d.name) DESC LIMIT 1
$$;

DROP FUNCTION asynctaskd.enqueue(
    text, jsonb, integer, integer, text[], text[], text, text, text, text, bigint, bigint, interval, timestamptz,
    timestamptz, interval, interval, text, integer, interval, jsonb);

-- A call of an exposed object's method is a task as well: `target` and `method` stand for its name.
CREATE FUNCTION asynctaskd.enqueue(
    name text DEFAULT NULL,
    payload jsonb DEFAULT '{}',
    priority integer DEFAULT NULL,
    weight integer DEFAULT NULL,
    labels text[] DEFAULT NULL,
    tags text[] DEFAULT NULL,
    unique_tag text DEFAULT NULL,
    unique_until text DEFAULT NULL,
    on_conflict text DEFAULT 'return',
    serial_key text DEFAULT NULL,
    serial_id bigint DEFAULT NULL,
    parent_id bigint DEFAULT NULL,
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    deadline timestamptz DEFAULT NULL,
    deadline_after interval DEFAULT NULL,
    timeout interval DEFAULT NULL,
    retry text DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    keep interval DEFAULT NULL,
    metadata jsonb DEFAULT NULL,
    depends_on bigint[] DEFAULT NULL,
    cron text DEFAULT NULL,
    target text DEFAULT NULL,
    method text DEFAULT NULL,
    idempotence_token text DEFAULT NULL,
    encoded boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql
-- By index, also where the plan was made while a table was empty; before PostgreSQL 18 a scan that is off and
-- unavoidable seems to cost so much that it would be compiled.
SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    now_is timestamptz := asynctaskd.clock();
    declared asynctaskd.definitions;
    problem text;
    new_id bigint;
    first_id bigint;
    root bigint;
    new_status text := 'pending';
    starts_at timestamptz;
    label_key text;
    key text;
    doom text;
    is_told boolean;
BEGIN
    IF num_nonnulls(enqueue.target, enqueue.method, enqueue.idempotence_token) > 0 THEN
        IF num_nonnulls(enqueue.target, enqueue.method) NOT IN (0, 2 * (enqueue.name IS NULL)::integer) THEN
            problem := 'target and method go together, in the place of a name';
        ELSIF num_nonnulls(enqueue.idempotence_token, enqueue.unique_tag) = 2 THEN
            problem := 'idempotence_token and unique_tag exclude each other';
        ELSIF char_length(enqueue.idempotence_token) NOT BETWEEN 1 AND 512 THEN
            problem := format('idempotence_token must have 1 to 512 characters, got %s',
                              char_length(enqueue.idempotence_token));
        END IF;
        enqueue.name := coalesce(enqueue.name, enqueue.target || '.' || enqueue.method);
        enqueue.unique_tag := coalesce(enqueue.unique_tag, enqueue.name || '#' || enqueue.idempotence_token);
    END IF;
    SELECT * INTO declared FROM asynctaskd.definitions WHERE definitions.name = enqueue.name;
    IF NOT FOUND THEN
        declared := asynctaskd.route_of(enqueue.name);
    END IF;
    key := coalesce(enqueue.serial_key, declared.serial_key);
    IF problem IS NULL AND (
       asynctaskd.is_name(enqueue.name) IS NOT TRUE
       OR asynctaskd.may_break_a_rule(enqueue.payload, enqueue.payload::text)
       OR num_nonnulls(enqueue.priority, enqueue.weight, enqueue.labels, enqueue.tags, enqueue.unique_tag,
                       enqueue.unique_until, key, enqueue.serial_id, enqueue.delay, enqueue.run_at,
                       enqueue.deadline, enqueue.deadline_after, enqueue.timeout, enqueue.retry,
                       enqueue.max_attempts, enqueue.keep, enqueue.metadata) > 0) THEN
        problem := asynctaskd.request_problem(
            enqueue.name, enqueue.payload, enqueue.priority, enqueue.weight, enqueue.labels, enqueue.tags,
            enqueue.unique_tag, enqueue.unique_until, key, enqueue.serial_id, enqueue.delay, enqueue.run_at,
            enqueue.deadline, enqueue.deadline_after, enqueue.timeout, enqueue.retry, enqueue.max_attempts,
            enqueue.keep, enqueue.metadata);
    END IF;
    IF declared.codec IS NOT NULL AND enqueue.encoded IS NOT TRUE THEN
        problem := coalesce(problem, format('payloads of task %L are encoded by the codec %s: enqueue it by a Client with '
                                            'its App, or encode it and say encoded => true', enqueue.name, declared.codec));
    END IF;
    IF enqueue.on_conflict NOT IN ('return', 'raise') THEN
        problem := format('on_conflict must be return or raise, got %L', enqueue.on_conflict);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    IF enqueue.name = 'updateWorkerRuntimeConfig' THEN
        RETURN asynctaskd.update_runtime_config(enqueue.payload, coalesce(enqueue.timeout, interval '30 s'));
    ELSIF enqueue.cron IS NOT NULL THEN
        RETURN asynctaskd.schedule_by_enqueue(
            enqueue.name, enqueue.payload, enqueue.cron, asynctaskd.said(jsonb_build_object(
                'priority', enqueue.priority, 'weight', enqueue.weight, 'labels', enqueue.labels,
                'tags', enqueue.tags, 'unique_tag', enqueue.unique_tag, 'unique_until', enqueue.unique_until,
                'serial_key', enqueue.serial_key, 'serial_id', enqueue.serial_id, 'parent_id', enqueue.parent_id,
                'delay', enqueue.delay, 'run_at', enqueue.run_at, 'deadline', enqueue.deadline,
                'deadline_after', enqueue.deadline_after, 'timeout', enqueue.timeout, 'retry', enqueue.retry,
                'max_attempts', enqueue.max_attempts, 'keep', enqueue.keep, 'metadata', enqueue.metadata,
                'depends_on', enqueue.depends_on)));
    END IF;

    new_id := nextval('asynctaskd.task_ids');
    IF enqueue.unique_tag IS NOT NULL THEN
        first_id := asynctaskd.take_unique_tag(
            enqueue.unique_tag, new_id, coalesce(enqueue.unique_until, declared.unique_until, 'forgotten'));
        IF first_id IS NOT NULL AND enqueue.on_conflict = 'raise' THEN
            RAISE EXCEPTION 'unique_tag % is taken by task %', quote_literal(enqueue.unique_tag), first_id
                USING ERRCODE = 'ATD03', DETAIL = first_id::text;
        ELSIF first_id IS NOT NULL THEN
            RETURN first_id;
        END IF;
    END IF;

    starts_at := coalesce(enqueue.run_at, asynctaskd.later(now_is, coalesce(enqueue.delay, declared.delay)));
    IF starts_at > now_is THEN
        new_status := 'scheduled';
    END IF;
    IF enqueue.parent_id IS NOT NULL THEN
        root := asynctaskd.lock_root(enqueue.parent_id);
        CASE asynctaskd.born_as(enqueue.parent_id)
            WHEN 'cancelled' THEN doom := 'parent cancelled';
            WHEN 'paused' THEN new_status := 'paused';
            ELSE NULL;
        END CASE;
    END IF;
    IF enqueue.depends_on <> '{}' AND doom IS NULL THEN
        SELECT broken, CASE WHEN waits AND new_status <> 'paused' THEN 'waiting' ELSE new_status END
        INTO doom, new_status FROM asynctaskd.add_dependencies(new_id, enqueue.depends_on);
    END IF;
    IF key IS NOT NULL AND new_status IN ('pending', 'scheduled') AND doom IS NULL
       AND NOT asynctaskd.goes_first(key, enqueue.serial_id) THEN
        new_status := 'waiting';
    END IF;
    label_key := coalesce(asynctaskd.label_set(enqueue.labels), declared.label_set, '');

    INSERT INTO asynctaskd.tasks (
        id, parent_id, root_id, serial_id, created_at, run_at, deadline, priority, weight, max_attempts, timeout,
        keep, status, name, label_set, tags, depends_on, unique_tag, serial_key, retry, reason, payload, metadata)
    VALUES (
        new_id, enqueue.parent_id, root, enqueue.serial_id, now_is, starts_at,
        coalesce(enqueue.deadline, asynctaskd.later(now_is, coalesce(enqueue.deadline_after, declared.deadline))),
        coalesce(enqueue.priority, declared.priority, 0), coalesce(enqueue.weight, declared.weight, 1),
        coalesce(enqueue.max_attempts, CASE WHEN enqueue.retry IS NULL THEN declared.max_attempts ELSE 10 END),
        coalesce(enqueue.timeout, declared.timeout), coalesce(enqueue.keep, declared.keep),
        -- A doomed one takes no place in its serial key's line.
        CASE WHEN doom IS NULL THEN new_status ELSE 'paused' END, enqueue.name, label_key,
        coalesce(enqueue.tags, declared.tags, '{}'), coalesce(enqueue.depends_on, '{}'), enqueue.unique_tag, key,
        enqueue.retry, CASE WHEN new_status = 'paused' THEN 'parent paused' END, enqueue.payload, enqueue.metadata);

    IF doom IS NOT NULL THEN
        PERFORM asynctaskd.finish(ARRAY[new_id], 'cancelled', doom);
    ELSIF new_status = 'pending' THEN
        is_told := asynctaskd.tell(ARRAY[label_key]);
    END IF;
    RETURN new_id;
END $$;

CREATE OR REPLACE FUNCTION asynctaskd.options_problem(options jsonb[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    known constant text[] := '{tags,unique_tag,unique_until,on_conflict,serial_key,serial_id,parent_id,delay,run_at,'
                             'deadline,deadline_after,timeout,retry,max_attempts,keep,metadata,depends_on,cron,'
                             'idempotence_token,encoded}';
BEGIN
    RETURN (
        SELECT format('request %s: %s', place, flaw)
        FROM unnest(options) WITH ORDINALITY AS o(option, place) CROSS JOIN LATERAL (
            SELECT 'its options must be an object' AS flaw WHERE jsonb_typeof(option) <> 'object'
            UNION ALL
            SELECT format('unknown option %L', key)
            FROM jsonb_object_keys(CASE WHEN jsonb_typeof(option) = 'object' THEN option END) AS key
            WHERE key <> ALL (known)
        ) AS wrong
        ORDER BY place LIMIT 1);
END $$;

CREATE OR REPLACE FUNCTION asynctaskd.enqueue_in_turn(
    names text[], payloads jsonb[], priorities integer[], weights integer[], labels text[], options jsonb[]
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    problem text;
    detail text;
    advice text;
    code text;
    asked record;
    ids bigint[] := '{}';
BEGIN
    -- Tags are taken in the order given; whoever brings the same ones in another order waits here, not crosswise.
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.unique_tag'), tag)
    FROM (SELECT DISTINCT hashtext(tag) AS tag
          FROM unnest(names, options) AS request(name, option),
               coalesce(option ->> 'unique_tag', name || '#' || (option ->> 'idempotence_token')) AS tag
          WHERE tag IS NOT NULL ORDER BY tag) AS tags;
    FOR asked IN
        SELECT * FROM unnest(names, payloads, priorities, weights, labels, options) WITH ORDINALITY
            AS r(name, payload, priority, weight, label_list, option, place)
    LOOP
        ids := ids || asynctaskd.enqueue(
            asked.name, asked.payload, asked.priority, asked.weight,
            string_to_array(asked.label_list, ','), asynctaskd.tags_of(asked.option),
            asked.option ->> 'unique_tag', asked.option ->> 'unique_until',
            coalesce(asked.option ->> 'on_conflict', 'return'), asked.option ->> 'serial_key',
            (asked.option ->> 'serial_id')::bigint, (asked.option ->> 'parent_id')::bigint,
            (asked.option ->> 'delay')::interval, (asked.option ->> 'run_at')::timestamptz,
            (asked.option ->> 'deadline')::timestamptz, (asked.option ->> 'deadline_after')::interval,
            (asked.option ->> 'timeout')::interval, asked.option ->> 'retry',
            (asked.option ->> 'max_attempts')::integer, (asked.option ->> 'keep')::interval,
            nullif(asked.option -> 'metadata', 'null'),
            CASE WHEN jsonb_typeof(asked.option -> 'depends_on') = 'array'
                 THEN ARRAY(SELECT jsonb_array_elements_text(asked.option -> 'depends_on')::bigint) END,
            asked.option ->> 'cron', idempotence_token => asked.option ->> 'idempotence_token',
            encoded => (asked.option ->> 'encoded')::boolean);
    END LOOP;
    RETURN ids;
EXCEPTION WHEN SQLSTATE 'ATD01' OR SQLSTATE 'ATD02' OR SQLSTATE 'ATD03' THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT,
                            code = RETURNED_SQLSTATE;
    RAISE EXCEPTION 'request %: %', asked.place, problem USING ERRCODE = code, DETAIL = detail, HINT = advice;
END $$;

CREATE OR REPLACE FUNCTION asynctaskd.enqueue_together(
    names text[], payloads jsonb[], priorities integer[], weights integer[], labels text[], options jsonb[],
    kind_names text[], kind_labels text[], kind_options jsonb[]
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    ids bigint[] := ARRAY(SELECT nextval('asynctaskd.task_ids') FROM generate_series(1, cardinality(names)));
    label_sets text[];
BEGIN
    WITH exact AS MATERIALIZED (
        SELECT d.name AS asked_name, d.* FROM asynctaskd.definitions AS d WHERE name = ANY (kind_names)
    ), declared AS (
        SELECT * FROM exact
        UNION ALL
        SELECT asked_name, route.*
        FROM (SELECT DISTINCT unnest(kind_names) AS asked_name) AS asked,
             LATERAL asynctaskd.route_of(asked_name) AS route
        WHERE asked_name NOT IN (SELECT asked_name FROM exact)
    ), kind AS MATERIALIZED (
        SELECT asked.name, asked.label_list, asked.option, start.at AS run_at,
               CASE WHEN start.at > now_is THEN 'scheduled' ELSE 'pending' END AS status,
               coalesce((option ->> 'deadline')::timestamptz, asynctaskd.later(
                   now_is, coalesce((option ->> 'deadline_after')::interval, declared.deadline))) AS deadline,
               declared.priority, declared.weight,
               coalesce((option ->> 'max_attempts')::integer,
                        CASE WHEN option ->> 'retry' IS NULL THEN declared.max_attempts ELSE 10 END) AS max_attempts,
               coalesce((option ->> 'timeout')::interval, declared.timeout) AS timeout,
               coalesce((option ->> 'keep')::interval, declared.keep) AS keep,
               coalesce(asynctaskd.label_set(string_to_array(label_list, ',')), declared.label_set, '') AS label_set,
               coalesce(asynctaskd.tags_of(option), declared.tags, '{}') AS tags,
               option ->> 'retry' AS retry, nullif(option -> 'metadata', 'null') AS metadata
        FROM unnest(kind_names, kind_labels, kind_options) AS asked(name, label_list, option)
             LEFT JOIN declared ON declared.asked_name = asked.name
             CROSS JOIN LATERAL (
                 SELECT coalesce((option ->> 'run_at')::timestamptz, asynctaskd.later(
                            now_is, coalesce((option ->> 'delay')::interval, declared.delay))) AS at
             ) AS start
    ), inserted AS (
        INSERT INTO asynctaskd.tasks (
            id, created_at, run_at, deadline, priority, weight, max_attempts, timeout, keep, status, name, label_set,
            tags, retry, payload, metadata)
        SELECT request.id, now_is, kind.run_at, kind.deadline, coalesce(request.priority, kind.priority, 0),
               coalesce(request.weight, kind.weight, 1), kind.max_attempts, kind.timeout, kind.keep, kind.status,
               kind.name, kind.label_set, kind.tags, kind.retry, request.payload, kind.metadata
        FROM (SELECT unnest(ids) AS id, unnest(names) AS name, unnest(payloads) AS payload,
                     unnest(priorities) AS priority, unnest(weights) AS weight,
                     unnest(labels) AS label_list, unnest(options) AS option) AS request
             -- No label is "!", and no options are an array: where they were left out, they hash too.
             JOIN kind ON kind.name = request.name
                      AND coalesce(kind.label_list, '!') = coalesce(request.label_list, '!')
                      AND coalesce(kind.option, '[]') = coalesce(request.option, '[]')
    )
    SELECT array_agg(DISTINCT label_set) INTO label_sets FROM kind WHERE status = 'pending';
    PERFORM asynctaskd.announce(label_sets);
    RETURN ids;
END $$;

-- `enqueue_many` for payloads that came as texts: `written` holds all of them.
CREATE OR REPLACE FUNCTION asynctaskd.enqueue_written(
    names text[], payloads jsonb[], written text[], priorities integer[], weights integer[], labels text[],
    options jsonb[]
) RETURNS bigint[]
LANGUAGE plpgsql
-- Plans are made for as few rows as a function's arguments are taken for, and used for ten thousand.
SET enable_seqscan = off SET enable_nestloop = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    problem text;
    kinds record;
BEGIN
    IF (SELECT count(DISTINCT n) FROM unnest(ARRAY[
            coalesce(cardinality(names), -1), coalesce(cardinality(payloads), -1),
            cardinality(priorities), cardinality(weights), cardinality(labels), cardinality(options)]) AS n) > 1 THEN
        problem := format('the arrays must have one element a task: names has %s, payloads has %s',
                          coalesce(cardinality(names)::text, '<NULL>'),
                          coalesce(cardinality(payloads)::text, '<NULL>'));
    ELSE
        problem := asynctaskd.options_problem(options);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;

    SELECT array_agg(name) AS names, array_agg(label_list) AS labels, array_agg(option) AS options INTO kinds
    FROM (SELECT DISTINCT unnest(names) AS name, unnest(labels) AS label_list, unnest(options) AS option) AS kind;
    IF EXISTS (SELECT FROM unnest(kinds.options) AS option
               WHERE option ?| '{unique_tag,unique_until,on_conflict,serial_key,serial_id,parent_id,depends_on,cron,'
                                'idempotence_token}')
       OR 'updateWorkerRuntimeConfig' = ANY (kinds.names)
       OR EXISTS (SELECT FROM (SELECT serial_key, codec FROM asynctaskd.definitions WHERE name = ANY (kinds.names)
                               UNION ALL
                               SELECT serial_key, codec FROM asynctaskd.definitions WHERE name LIKE '%*') AS declared
                  WHERE serial_key IS NOT NULL OR codec IS NOT NULL AND EXISTS (
                      SELECT FROM unnest(kinds.options) AS option WHERE option -> 'encoded' IS DISTINCT FROM 'true')) THEN
        RETURN asynctaskd.enqueue_in_turn(names, payloads, priorities, weights, labels, options);
    END IF;

    IF 0 > ANY (priorities) OR 1 > ANY (weights) OR asynctaskd.is_one_bad(payloads, written)
       OR EXISTS (SELECT FROM unnest(kinds.names, kinds.labels, kinds.options) AS kind(name, label_list, option)
                  WHERE asynctaskd.problem_of_one(name, '{}', NULL, NULL, label_list, option) IS NOT NULL) THEN
        SELECT format('request %s: %s', place, flaw) INTO STRICT problem
        FROM unnest(names, payloads, priorities, weights, labels, options) WITH ORDINALITY
             AS request(name, payload, priority, weight, label_list, option, place),
             asynctaskd.problem_of_one(name, payload, priority, weight, label_list, option) AS flaw
        WHERE flaw IS NOT NULL ORDER BY place LIMIT 1;
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    RETURN asynctaskd.enqueue_together(
        names, payloads, priorities, weights, labels, options, kinds.names, kinds.labels, kinds.options);
END $$;

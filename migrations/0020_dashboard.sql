-- schema 1.18
--
-- The dashboard: what it shows of tasks while millions of them are kept, and who has changed what.

-- What was changed by hand, by whom. Nothing forgets these rows.
CREATE TABLE asynctaskd.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,                              -- the name of the token, or `local` where none is needed
    address text,                                     -- where the request came from
    db_user text NOT NULL DEFAULT session_user,
    action text NOT NULL,
    target jsonb NOT NULL DEFAULT '{}',               -- which tasks, label, schedule or version
    before jsonb,
    after jsonb,
    outcome text NOT NULL                             -- in words
);

-- The few live tasks that neither run nor can: a page of them doesn't walk through all that is pending. And the ends that
-- aren't completions. Their conditions are ones that nobody else mentions, so the planner can't be tempted to go by them.
CREATE INDEX tasks_at_rest ON asynctaskd.tasks (id, status) WHERE status || '' IN ('scheduled', 'waiting', 'paused');
CREATE INDEX task_events_ends ON asynctaskd.task_events (id)
    WHERE kind || '' IN ('failed', 'quarantined', 'cancelled', 'expired');


-- Looking for tasks, for as long as there is time.

-- The first id of those that were enqueued at that time or later, within a few: ids are given in the order of time.
CREATE FUNCTION asynctaskd.first_task_since(moment timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE STRICT
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    low bigint := 1;
    high bigint := coalesce(pg_sequence_last_value('asynctaskd.task_ids'), 0) + 1;
    middle bigint;
    found record;
BEGIN
    WHILE low < high LOOP
        middle := (low + high) / 2;
        SELECT t.id, t.created_at INTO found FROM (
            (SELECT l.id, l.created_at FROM asynctaskd.tasks AS l WHERE l.id >= middle ORDER BY l.id LIMIT 1)
            UNION ALL
            (SELECT f.id, f.created_at FROM asynctaskd.finished_tasks AS f WHERE f.id >= middle ORDER BY f.id LIMIT 1)
        ) AS t ORDER BY t.id LIMIT 1;
        IF found.id IS NULL OR found.created_at >= moment THEN
            high := middle;
        ELSE
            low := found.id + 1;
        END IF;
    END LOOP;
    RETURN low;
END $$;

-- Records are looked at in stretches, the newest first, by their `place`: their ids or, where only ends that aren't
-- completions are `wanted` (statuses; none: any), those of the events that tell of them.

CREATE FUNCTION asynctaskd.is_by_end(wanted text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN wanted <> '{}' AND wanted <@ '{failed,cancelled,expired}';

-- The next stretch before a place: so many records, or all there are from `first` on, and the last place among them.
CREATE FUNCTION asynctaskd.next_stretch(wanted text[], before bigint, first bigint, most integer, OUT number bigint, OUT last bigint)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
SET max_parallel_workers_per_gather = 0
AS $$
DECLARE
    live boolean := wanted = '{}' OR wanted && '{scheduled,waiting,pending,running,paused}';
    ended boolean := wanted = '{}' OR wanted && '{completed,failed,cancelled,expired}';
    at_rest boolean := wanted <> '{}' AND wanted <@ '{scheduled,waiting,paused}';
BEGIN
    IF asynctaskd.is_by_end(wanted) THEN
        SELECT count(*), min(id) INTO number, last FROM (
            SELECT e.id FROM asynctaskd.task_events AS e
            WHERE e.kind || '' IN ('failed', 'quarantined', 'cancelled', 'expired') AND e.id < before
            ORDER BY e.id DESC LIMIT most) AS these;
    ELSE
        SELECT count(*), min(id) INTO number, last FROM (
            SELECT id FROM (
                (SELECT l.id FROM asynctaskd.tasks AS l
                 WHERE live AND l.id < before AND l.id >= first
                   AND (NOT at_rest OR l.status || '' IN ('scheduled', 'waiting', 'paused'))
                 ORDER BY l.id DESC LIMIT most)
                UNION ALL  -- each limited by itself: of a union over partitions the planner would sort everything
                (SELECT f.id FROM asynctaskd.finished_tasks AS f
                 WHERE ended AND f.id < before AND f.id >= first
                 ORDER BY f.id DESC LIMIT most)
            ) AS both_of_them ORDER BY id DESC LIMIT most) AS these;
    END IF;
END $$;

-- The tasks of a stretch that fit a filter, the newest first: see `search_tasks`. With `ids` only those of these.
CREATE FUNCTION asynctaskd.fitting(filter jsonb, before bigint, last bigint, most integer)
RETURNS TABLE (place bigint, id bigint, status text, name text, label_set text, tags text[], unique_tag text,
               priority integer, attempts integer, max_attempts integer, reason text, worker_id uuid, parent_id bigint,
               run_at timestamptz, claimed_at timestamptz, finished_at timestamptz, created_at timestamptz)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off SET max_parallel_workers_per_gather = 0
AS $$
#variable_conflict use_column
DECLARE
    wanted text[] := ARRAY(SELECT jsonb_array_elements_text(filter -> 'statuses'));
    is_any boolean := wanted = '{}';
    at_rest boolean := NOT is_any AND wanted <@ '{scheduled,waiting,paused}';
    its_ids bigint[] := CASE WHEN filter ? 'ids' THEN ARRAY(SELECT jsonb_array_elements_text(filter -> 'ids')::bigint) END;
    its_name text := filter ->> 'name';
    its_labels text[] := ARRAY(SELECT jsonb_array_elements_text(filter -> 'labels'));
    its_tags text[] := ARRAY(SELECT jsonb_array_elements_text(filter -> 'tags'));
    its_unique_tag text := filter ->> 'unique_tag';
    since timestamptz := coalesce((filter ->> 'since')::timestamptz, '-infinity');
    until timestamptz := coalesce((filter ->> 'until')::timestamptz, 'infinity');
BEGIN
    IF asynctaskd.is_by_end(wanted) AND its_ids IS NULL THEN
        RETURN QUERY
        SELECT e.id, f.id, f.status, f.name, f.label_set, f.tags, f.unique_tag, f.priority, f.attempts, f.max_attempts,
               f.reason, f.worker_id, f.parent_id, f.run_at, f.claimed_at, f.finished_at, f.created_at
        FROM asynctaskd.task_events AS e CROSS JOIN LATERAL (
            SELECT * FROM asynctaskd.finished_tasks AS r WHERE r.id = e.task_id AND r.status = ANY (wanted) LIMIT 1) AS f
        WHERE e.kind || '' IN ('failed', 'quarantined', 'cancelled', 'expired') AND e.id < before AND e.id >= last
          AND (its_name IS NULL OR f.name = its_name) AND (its_unique_tag IS NULL OR f.unique_tag = its_unique_tag)
          AND (its_labels = '{}' OR string_to_array(f.label_set, ',') @> its_labels)
          AND (its_tags = '{}' OR f.tags @> its_tags) AND f.created_at >= since AND f.created_at < until
          AND NOT EXISTS (  -- of what was retried only the last end is told
              SELECT FROM asynctaskd.task_events AS again
              WHERE again.task_id = e.task_id AND again.id > e.id
                AND again.kind IN ('failed', 'quarantined', 'cancelled', 'expired'))
        ORDER BY e.id DESC LIMIT most;
    ELSE
        RETURN QUERY
        SELECT t.id, t.* FROM (
            (SELECT l.id, l.status, l.name, l.label_set, l.tags, l.unique_tag, l.priority, l.attempts, l.max_attempts,
                    l.reason, l.worker_id, l.parent_id, l.run_at, l.claimed_at, NULL::timestamptz, l.created_at
             FROM asynctaskd.tasks AS l
             WHERE l.id < before AND l.id >= last AND (its_ids IS NULL OR l.id = ANY (its_ids))
               AND (is_any OR wanted && '{scheduled,waiting,pending,running,paused}' AND l.status = ANY (wanted))
               AND (NOT at_rest OR l.status || '' IN ('scheduled', 'waiting', 'paused'))
               AND (its_name IS NULL OR l.name = its_name) AND (its_unique_tag IS NULL OR l.unique_tag = its_unique_tag)
               AND (its_labels = '{}' OR string_to_array(l.label_set, ',') @> its_labels)
               AND (its_tags = '{}' OR l.tags @> its_tags) AND l.created_at >= since AND l.created_at < until
             ORDER BY l.id DESC LIMIT most)
            UNION ALL
            (SELECT f.id, f.status, f.name, f.label_set, f.tags, f.unique_tag, f.priority, f.attempts, f.max_attempts,
                    f.reason, f.worker_id, f.parent_id, f.run_at, f.claimed_at, f.finished_at, f.created_at
             FROM asynctaskd.finished_tasks AS f
             WHERE f.id < before AND f.id >= last AND (its_ids IS NULL OR f.id = ANY (its_ids))
               AND (is_any OR wanted && '{completed,failed,cancelled,expired}' AND f.status = ANY (wanted))
               AND (its_name IS NULL OR f.name = its_name) AND (its_unique_tag IS NULL OR f.unique_tag = its_unique_tag)
               AND (its_labels = '{}' OR string_to_array(f.label_set, ',') @> its_labels)
               AND (its_tags = '{}' OR f.tags @> its_tags) AND f.created_at >= since AND f.created_at < until
             ORDER BY f.id DESC LIMIT most)
        ) AS t ORDER BY t.id DESC LIMIT most;
    END IF;
END $$;

-- The newest tasks that fit a filter, as one document: `tasks`, at most so many; how many records were `looked` at; and
-- `next`, the place after which there may be more, or null. It ends with what it has when `budget` is over.
--
-- The filter is an object of conditions: `ids` and `statuses` (any of them), `name`, `labels` and `tags` (all of them),
-- `unique_tag`, and `since` and `until` of the creation. Of the tasks nothing but `id` and `place` is told where they
-- aren't wanted `whole`.
CREATE FUNCTION asynctaskd.search_tasks(
    filter jsonb, before bigint, most integer, budget interval, whole boolean DEFAULT true
) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    ends_at timestamptz := clock_timestamp() + budget;
    wanted text[] := ARRAY(SELECT jsonb_array_elements_text(filter -> 'statuses'));
    place bigint := coalesce(before, 9223372036854775807);
    -- A little farther, since those who enqueue at the same time may get their ids in another order.
    first bigint := coalesce(asynctaskd.first_task_since((filter ->> 'since')::timestamptz) - 1000, 0);
    -- Each end is looked up by itself: short stretches, so that the time is kept.
    longest integer := CASE WHEN asynctaskd.is_by_end(ARRAY(SELECT jsonb_array_elements_text(filter -> 'statuses')))
                            THEN 300 ELSE 4000 END;
    step integer := least(4 * most, 800, longest);
    found jsonb := '[]';
    looked bigint := 0;
    stretch record;
    few bigint[];
BEGIN
    IF filter ? 'ids' THEN
        few := ARRAY(SELECT jsonb_array_elements_text(filter -> 'ids')::bigint);
    ELSIF wanted = '{running}' THEN
        few := ARRAY(SELECT id FROM asynctaskd.tasks WHERE worker_id IS NOT NULL);
    ELSIF EXISTS (SELECT FROM asynctaskd.unique_tags WHERE tag = filter ->> 'unique_tag') THEN
        few := ARRAY(SELECT task_id FROM asynctaskd.unique_tags WHERE tag = filter ->> 'unique_tag');
    END IF;
    IF few IS NOT NULL THEN
        SELECT coalesce(jsonb_agg(CASE WHEN whole THEN to_jsonb(f) ELSE jsonb_build_object('id', f.id, 'place', f.place) END), '[]')
        INTO found FROM asynctaskd.fitting(filter || jsonb_build_object('ids', few), place, 0, most) AS f;
        RETURN jsonb_build_object('tasks', found, 'looked', cardinality(few), 'next',
                                  CASE WHEN jsonb_array_length(found) >= most THEN found -> -1 -> 'place' END);
    END IF;
    IF filter ->> 'until' IS NOT NULL AND NOT asynctaskd.is_by_end(wanted) THEN
        place := least(place, asynctaskd.first_task_since((filter ->> 'until')::timestamptz) + 1000);
    END IF;
    LOOP
        stretch := asynctaskd.next_stretch(wanted, place, first, step);
        found := found || (
            SELECT coalesce(jsonb_agg(CASE WHEN whole THEN to_jsonb(f) ELSE jsonb_build_object('id', f.id, 'place', f.place) END), '[]')
            FROM asynctaskd.fitting(filter, place, coalesce(stretch.last, place), most - jsonb_array_length(found)) AS f);
        looked := looked + stretch.number;
        IF jsonb_array_length(found) >= most THEN
            RETURN jsonb_build_object('tasks', found, 'looked', looked, 'next', found -> -1 -> 'place');
        ELSIF stretch.number < step THEN
            RETURN jsonb_build_object('tasks', found, 'looked', looked, 'next', NULL);
        ELSIF clock_timestamp() > ends_at THEN
            RETURN jsonb_build_object('tasks', found, 'looked', looked, 'next', stretch.last);
        END IF;
        place := stretch.last;
        step := least(2 * step, longest);
    END LOOP;
END $$;

-- How many rows the planner expects of a query.
CREATE FUNCTION asynctaskd.expected(query text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    answer jsonb;
BEGIN
    EXECUTE 'EXPLAIN (FORMAT JSON) ' || query INTO answer;
    RETURN (answer -> 0 -> 'Plan' ->> 'Plan Rows')::numeric::bigint;
END $$;

-- How many live tasks there are, by status: {status: number}. Counted no farther than `most` each.
CREATE FUNCTION asynctaskd.count_live(most integer) RETURNS jsonb
LANGUAGE sql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
    SELECT jsonb_object_agg(status, number)
    FROM (SELECT 'pending' AS status, count(*) AS number FROM (
              (SELECT FROM asynctaskd.tasks WHERE status = 'pending' AND losses < 2 AND priority = 0 LIMIT most + 1)
              UNION ALL
              (SELECT FROM asynctaskd.tasks WHERE status = 'pending' AND losses < 2 AND priority > 0 LIMIT most + 1)
              UNION ALL
              (SELECT FROM asynctaskd.tasks WHERE status = 'pending' AND losses >= 2 LIMIT most + 1)) AS ready
          UNION ALL
          SELECT 'running', count(*) FROM (SELECT FROM asynctaskd.tasks WHERE worker_id IS NOT NULL LIMIT most + 1) AS held
          UNION ALL
          SELECT resting, count(*) FILTER (WHERE few.status = resting)
          FROM unnest('{scheduled,waiting,paused}'::text[]) AS resting LEFT JOIN (
              SELECT t.status FROM asynctaskd.tasks AS t WHERE t.status || '' IN ('scheduled', 'waiting', 'paused')
              LIMIT most + 1) AS few ON true
          GROUP BY resting) AS live
$$;

-- The same of those that have ended, or NULL where there are more than `most`.
CREATE FUNCTION asynctaskd.count_ended(most integer) RETURNS jsonb
LANGUAGE sql STABLE
SET jit = off
AS $$
    SELECT CASE WHEN count(*) <= most THEN jsonb_build_object(
        'completed', count(*) FILTER (WHERE status = 'completed'), 'failed', count(*) FILTER (WHERE status = 'failed'),
        'cancelled', count(*) FILTER (WHERE status = 'cancelled'), 'expired', count(*) FILTER (WHERE status = 'expired')) END
    FROM (SELECT status FROM asynctaskd.finished_tasks LIMIT most + 1) AS few
$$;

-- How many tasks there are, by status: {status: [number, is it an estimate?]}. Counted no farther than `most` each.
CREATE FUNCTION asynctaskd.count_tasks(most integer) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    live jsonb := asynctaskd.count_live(most);
    ended jsonb := asynctaskd.count_ended(most);
    resting bigint := (live ->> 'scheduled')::bigint + (live ->> 'waiting')::bigint + (live ->> 'paused')::bigint;
BEGIN
    RETURN (
        SELECT jsonb_object_agg(status, CASE
            WHEN number > most OR status IN ('scheduled', 'waiting', 'paused') AND resting > most
                THEN jsonb_build_array(greatest(number, asynctaskd.expected(format(
                    'SELECT FROM asynctaskd.tasks WHERE status = %L', status))), true)
            ELSE jsonb_build_array(number, false) END)
        FROM (SELECT key AS status, value::bigint AS number FROM jsonb_each_text(live)) AS counted
    ) || (
        SELECT jsonb_object_agg(status, CASE
            WHEN ended IS NULL THEN jsonb_build_array(asynctaskd.expected(format(
                'SELECT FROM asynctaskd.finished_tasks WHERE status = %L', status)), true)
            ELSE jsonb_build_array(ended -> status, false) END)
        FROM unnest('{completed,failed,cancelled,expired}'::text[]) AS status);
END $$;


-- What has ended of late, by group, as far as it is at the ends of the tables: see `finished_lately`.

CREATE FUNCTION asynctaskd.ended_lately(since timestamptz, pages integer)
RETURNS TABLE (partition text, is_cut boolean, label_set text, status text, finished_at timestamptz, waited float8,
               took float8)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    one record;
    is_fresh boolean;
BEGIN
    FOR one IN
        SELECT relname, pg_relation_size(inhrelid) / current_setting('block_size')::bigint AS size
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'asynctaskd.finished_tasks'::regclass AND NOT inhdetachpending
    LOOP
        CONTINUE WHEN coalesce(one.size, 0) = 0;
        BEGIN
            -- Where the last pages hold nothing of that time, nothing before them does.
            EXECUTE format('SELECT EXISTS (SELECT FROM asynctaskd.%I WHERE ctid >= %L::tid AND finished_at > $1)',
                           one.relname, format('(%s,0)', greatest(one.size - 2, 0)))
            INTO is_fresh USING since;
            CONTINUE WHEN NOT is_fresh;
            RETURN QUERY EXECUTE format(
                'SELECT %L::text, $2, label_set, status, finished_at, '
                '       extract(epoch FROM claimed_at - greatest(created_at, run_at))::float8, '
                '       extract(epoch FROM finished_at - claimed_at)::float8 '
                'FROM asynctaskd.%I WHERE ctid >= %L::tid AND label_set <> ''!control''',
                one.relname, one.relname, format('(%s,0)', greatest(one.size - pages, 0)))
            USING since, one.size > pages;
        EXCEPTION WHEN undefined_table THEN  -- its day has come meanwhile
            NULL;
        END;
    END LOOP;
END $$;

-- The same as one document: `since` when it covers, and for each of so many `steps` and each group (of the labels that
-- are `weighted`) what ended, failed, and how long it had waited and run, in seconds.
CREATE FUNCTION asynctaskd.pulse(span interval, steps integer, weighted text[], pages integer DEFAULT 160) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET jit = off
AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    answer jsonb;
BEGIN
    WITH read AS MATERIALIZED (
        SELECT * FROM asynctaskd.ended_lately(now_is - span, pages)
    ), covered AS MATERIALIZED (
        -- Of a table that wasn't read from its beginning, what came before its first row isn't known.
        SELECT greatest(now_is - span, max(first)) AS since
        FROM (SELECT min(finished_at) AS first FROM read WHERE is_cut GROUP BY partition) AS cuts
    ), named AS MATERIALIZED (
        SELECT label_set, coalesce((
            SELECT min(label COLLATE "C") FROM unnest(string_to_array(label_set, ',')) AS label
            WHERE label = ANY (weighted)), 'default') AS name
        FROM (SELECT DISTINCT label_set FROM read) AS sets
    ), lately AS MATERIALIZED (
        SELECT n.name, r.status, r.waited, r.took,
               least(floor(steps * extract(epoch FROM r.finished_at - c.since)
                           / nullif(extract(epoch FROM now_is - c.since), 0))::integer, steps - 1) AS step
        FROM read AS r JOIN named AS n USING (label_set) CROSS JOIN covered AS c
        WHERE r.finished_at > c.since
    )
    SELECT jsonb_build_object(
        'at', now_is, 'since', (SELECT since FROM covered),
        'steps', (SELECT coalesce(jsonb_agg(s), '[]') FROM (
            SELECT name, step, count(*) AS ended, count(*) FILTER (WHERE status = 'failed') AS failed
            FROM lately GROUP BY name, step) AS s),
        'groups', (SELECT coalesce(jsonb_agg(g), '[]') FROM (
            SELECT name, count(*) AS ended, count(*) FILTER (WHERE status = 'failed') AS failed,
                   percentile_cont(0.5) WITHIN GROUP (ORDER BY waited) AS waited,
                   percentile_cont(0.95) WITHIN GROUP (ORDER BY waited) AS waited_p95,
                   percentile_cont(0.95) WITHIN GROUP (ORDER BY took) AS took_p95
            FROM lately GROUP BY name) AS g)) INTO answer;
    RETURN answer;
END $$;


-- Whom a task is related to, as rows of (relation, id, name, status): its ancestors, its children (of those that have
-- ended, what is found among the next `looks` records), what it depends on and what depends on it; at most so many each.
CREATE FUNCTION asynctaskd.relatives(task bigint, most integer, looks integer)
RETURNS TABLE (relation text, id bigint, name text, status text)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    own record;
BEGIN
    SELECT * INTO own FROM (
        SELECT l.id, l.parent_id, l.root_id, l.depends_on FROM asynctaskd.tasks AS l WHERE l.id = task
        UNION ALL
        SELECT f.id, f.parent_id, f.root_id, f.depends_on FROM asynctaskd.finished_tasks AS f WHERE f.id = task) AS t
    LIMIT 1;
    RETURN QUERY
    WITH RECURSIVE up (id, parent_id, name, status, nth) AS (
        SELECT t.id, t.parent_id, t.name, t.status, 1 FROM asynctaskd.all_tasks AS t WHERE t.id = own.parent_id
        UNION ALL
        SELECT t.id, t.parent_id, t.name, t.status, up.nth + 1
        FROM up CROSS JOIN LATERAL (SELECT * FROM asynctaskd.all_tasks AS a WHERE a.id = up.parent_id) AS t
        WHERE up.nth < most
    ) SELECT 'ancestor', up.id, up.name, up.status FROM up;
    RETURN QUERY
    SELECT 'child', c.id, c.name, c.status FROM (
        (SELECT l.id, l.name, l.status FROM asynctaskd.tasks AS l
         WHERE l.root_id = coalesce(own.root_id, own.id) AND l.parent_id = task LIMIT most)
        UNION ALL
        (SELECT n.id, n.name, n.status FROM (
             SELECT f.id, f.name, f.status, f.parent_id FROM asynctaskd.finished_tasks AS f
             WHERE f.id > task ORDER BY f.id LIMIT looks) AS n WHERE n.parent_id = task LIMIT most)
    ) AS c ORDER BY c.id LIMIT most;
    RETURN QUERY
    SELECT 'needs', needed, t.name, t.status
    FROM unnest(own.depends_on[1:most]) AS needed
         LEFT JOIN LATERAL (SELECT a.name, a.status FROM asynctaskd.all_tasks AS a WHERE a.id = needed LIMIT 1) AS t ON true;
    RETURN QUERY
    SELECT 'needed by', d.task_id, t.name, t.status
    FROM (SELECT n.task_id FROM asynctaskd.dependencies AS n WHERE n.depends_on = task ORDER BY n.task_id LIMIT most) AS d
         CROSS JOIN LATERAL (SELECT l.name, l.status FROM asynctaskd.tasks AS l WHERE l.id = d.task_id) AS t;
END $$;


-- Enqueues a task of a schedule at once, beside its slots; returns its id, or NULL where there is no such schedule.
CREATE FUNCTION asynctaskd.run_schedule(schedule text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    s asynctaskd.schedules;
BEGIN
    SELECT * INTO s FROM asynctaskd.schedules WHERE name = schedule;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    s.reserved_task := NULL;  -- the id that was promised is the next slot's
    RETURN asynctaskd.enqueue_slot(s, s.params, false);
END $$;

-- How far a task is, in percent, as far as its handler has said so.
CREATE FUNCTION asynctaskd.percent_of(task bigint) RETURNS float8
LANGUAGE sql STABLE
RETURN (SELECT CASE WHEN jsonb_typeof(progress -> 'percent') = 'number' THEN (progress ->> 'percent')::float8 END
        FROM asynctaskd.all_tasks WHERE id = task LIMIT 1);

-- Writes down what somebody has changed by hand; returns the row's id.
CREATE FUNCTION asynctaskd.note_audit(
    actor text, address text, action text, target jsonb, before jsonb, after jsonb, outcome text
) RETURNS bigint
LANGUAGE sql AS $$
    INSERT INTO asynctaskd.audit (actor, address, action, target, before, after, outcome)
    VALUES (actor, address, action, target, before, after, outcome) RETURNING id
$$;

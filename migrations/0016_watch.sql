-- schema 1.14
--
-- Live views. Workers tell what they do only while somebody watches: a watcher is a row that expires, as a worker is.

CREATE TABLE asynctaskd.watchers (
    id uuid PRIMARY KEY,
    wants text NOT NULL CHECK (wants IN ('events', 'shares')),
    expires_at timestamptz NOT NULL
);

-- How many tasks each worker has claimed, by group, while it was watched: {group: claims}, the strict lane as "!strict".
-- Apart from the workers' own rows, which every enqueuer reads.
CREATE TABLE asynctaskd.claims_told (
    worker_id uuid PRIMARY KEY REFERENCES asynctaskd.workers ON DELETE CASCADE,
    claims jsonb NOT NULL,
    told_at timestamptz NOT NULL
) WITH (fillfactor = 50);  -- each second anew, on its page (HOT)

-- Begins or goes on watching; workers hear of the beginning at once, or with their next renewal.
CREATE FUNCTION asynctaskd.watch(watcher uuid, wanted text, lease interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
BEGIN
    UPDATE asynctaskd.watchers SET expires_at = now_is + lease WHERE id = watcher AND expires_at > now_is;
    IF NOT FOUND THEN
        DELETE FROM asynctaskd.watchers WHERE expires_at < now_is - interval '1 minute' OR id = watcher;
        INSERT INTO asynctaskd.watchers (id, wants, expires_at) VALUES (watcher, wanted, now_is + lease);
        PERFORM pg_notify('asynctaskd_ready', '!watched');
    END IF;
END $$;


-- What there is to see, at the cost of what is shown and not of what there is.

-- What is ready in the normal lane, by label set: how many tasks, counted no farther than `most` (over all sets not
-- farther than three times that), and the one that has waited longest. Within one weight that is the first; of more than
-- sixteen weights the least ones are looked at, since these wait longest.
CREATE FUNCTION asynctaskd.ready_by_label_set(most integer, most_sets integer)
RETURNS TABLE (label_set text, ready bigint, is_more boolean, oldest bigint, oldest_since timestamptz)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    sets text[];
BEGIN
    WITH RECURSIVE walk (label_set, nth) AS (
        (SELECT t.label_set, 1 FROM asynctaskd.tasks AS t
         WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 ORDER BY t.label_set LIMIT 1)
        UNION ALL
        SELECT (SELECT t.label_set FROM asynctaskd.tasks AS t
                WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set > walk.label_set
                ORDER BY t.label_set LIMIT 1), walk.nth + 1
        FROM walk WHERE walk.label_set IS NOT NULL AND walk.nth < most_sets
    )
    SELECT array_agg(walk.label_set) INTO sets FROM walk WHERE walk.label_set IS NOT NULL;
    most := least(most, greatest(3 * most / greatest(cardinality(sets), 1), 1));
    RETURN QUERY
    SELECT one, least(counted.n, most), counted.n > most, first.id, first.created_at
    FROM unnest(sets) AS one
         CROSS JOIN LATERAL (
             SELECT count(*) AS n
             FROM (SELECT t.id FROM asynctaskd.tasks AS t  -- in no order: so the index is enough
                   WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = one
                   LIMIT most + 1) AS few) AS counted
         CROSS JOIN LATERAL (
             WITH RECURSIVE weights (place, nth) AS (
                 (SELECT -t.weight, 1 FROM asynctaskd.tasks AS t
                  WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = one
                  ORDER BY -t.weight DESC LIMIT 1)
                 UNION ALL
                 SELECT (SELECT -t.weight FROM asynctaskd.tasks AS t
                         WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = one
                           AND -t.weight < weights.place
                         ORDER BY -t.weight DESC LIMIT 1), weights.nth + 1
                 FROM weights WHERE weights.place IS NOT NULL AND weights.nth < 16
             )
             SELECT head.id, head.created_at
             FROM weights CROSS JOIN LATERAL (
                 SELECT t.id, t.created_at FROM asynctaskd.tasks AS t
                 WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = one
                   AND -t.weight = weights.place
                 ORDER BY t.id LIMIT 1) AS head
             ORDER BY head.id LIMIT 1) AS first;
END $$;

-- What waits in the strict lane, control tasks aside, counted no farther than `most`; with the oldest one.
CREATE FUNCTION asynctaskd.ready_strict(most integer)
RETURNS TABLE (ready bigint, is_more boolean, oldest bigint, oldest_since timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT least(count(*), most), count(*) > most, min(id), min(created_at)
    FROM (SELECT id, created_at FROM asynctaskd.tasks
          WHERE status = 'pending' AND losses < 2 AND priority > 0 AND label_set <> '!control'
          ORDER BY id LIMIT most + 1) AS few
$$;

-- What runs, by worker, label set, name and lane, with the claim that is oldest.
CREATE FUNCTION asynctaskd.running_tasks()
RETURNS TABLE (worker_id uuid, label_set text, name text, is_strict boolean, running bigint, oldest bigint,
               since timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT worker_id, label_set, name, priority > 0, count(*), (array_agg(id ORDER BY claimed_at, id))[1], min(claimed_at)
    FROM asynctaskd.tasks WHERE worker_id IS NOT NULL AND label_set <> '!control'
    GROUP BY worker_id, label_set, name, priority > 0
$$;

-- The tasks that finished within `since`, as far as they are at the ends of their tables. Records are added there (only
-- a purge makes room before), so no index is needed to find the newest ones: the last `pages` of each are read.
CREATE FUNCTION asynctaskd.finished_lately(since interval, pages integer)
RETURNS TABLE (name text, status text, seconds float8)
LANGUAGE plpgsql STABLE AS $$
DECLARE
    partition record;
BEGIN
    FOR partition IN
        SELECT relname, pg_relation_size(inhrelid) / current_setting('block_size')::bigint AS size
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'asynctaskd.finished_tasks'::regclass AND NOT inhdetachpending
    LOOP
        CONTINUE WHEN coalesce(partition.size, 0) = 0;
        BEGIN
            RETURN QUERY EXECUTE format(
                'SELECT name, status, extract(epoch FROM finished_at - claimed_at)::float8 FROM asynctaskd.%I '
                'WHERE ctid >= %L::tid AND finished_at > $1 AND claimed_at IS NOT NULL AND label_set <> ''!control''',
                partition.relname, format('(%s,0)', greatest(partition.size - pages, 0)))
            USING asynctaskd.clock() - since;
        EXCEPTION WHEN undefined_table THEN  -- its day has come meanwhile
            NULL;
        END;
    END LOOP;
END $$;

-- The fleet at this moment, as one document: what `asynctaskd top` shows.
CREATE FUNCTION asynctaskd.overview(most integer DEFAULT 10000, most_sets integer DEFAULT 1000) RETURNS jsonb
LANGUAGE plpgsql STABLE
-- Plans that depend on statistics would walk through the backlog.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
BEGIN
    RETURN jsonb_build_object(
        'at', now_is,
        'config', asynctaskd.runtime_config_content(asynctaskd.newest_for_all())
            || jsonb_build_object('version', asynctaskd.newest_for_all()),
        'ready', (SELECT coalesce(jsonb_agg(r), '[]') FROM asynctaskd.ready_by_label_set(most, most_sets) AS r),
        'strict', (SELECT to_jsonb(r) FROM asynctaskd.ready_strict(most) AS r),
        'running', (SELECT coalesce(jsonb_agg(r), '[]') FROM asynctaskd.running_tasks() AS r),
        'finished', (
            SELECT coalesce(jsonb_agg(r), '[]')
            FROM (SELECT name, count(*) AS finished, count(*) FILTER (WHERE status = 'failed') AS failed,
                         avg(seconds) AS mean, percentile_cont(0.95) WITHIN GROUP (ORDER BY seconds) AS p95
                  FROM asynctaskd.finished_lately(interval '1 minute', 32)
                  GROUP BY name ORDER BY mean DESC LIMIT 20) AS r),
        'workers', (
            SELECT coalesce(jsonb_agg(r), '[]')
            FROM (SELECT w.id, w.name, w.hostname, w.pid, w.labels, w.concurrency, w.max_strict_percentage,
                         asynctaskd.known_version(w.applied_config_version, w.applied_config) AS applied_config_version,
                         asynctaskd.known_version(w.rejected_config_version, w.rejected_config)
                             AS rejected_config_version,
                         w.rejected_because, w.stall, told.claims,
                         extract(epoch FROM now_is - w.renewed_at)::float8 AS silent
                  FROM asynctaskd.workers AS w LEFT JOIN asynctaskd.claims_told AS told ON told.worker_id = w.id
                  WHERE asynctaskd.is_live(w) ORDER BY w.hostname, w.started_at, w.id) AS r),
        'commands', (
            SELECT coalesce(jsonb_agg(r), '[]')
            FROM (SELECT c.request_id, c.action, c.requested_by, c.requested_at, count(*) AS open,
                         array_agg(DISTINCT o.worker_id) FILTER (WHERE o.worker_id IS NOT NULL) AS workers
                  FROM asynctaskd.receipts AS o JOIN asynctaskd.commands AS c USING (request_id)
                  WHERE o.outcome IS NULL
                  GROUP BY c.request_id ORDER BY c.requested_at LIMIT 20) AS r));
END $$;


-- What happened of late, for those who watch. Each call has a plan of its own: one that was made while the tables were
-- empty would walk through all of them.

-- Tasks that were enqueued, the newest first: at most so many above an id, and those of some ids that weren't there yet.
CREATE FUNCTION asynctaskd.new_tasks(after bigint, most integer, passed_over bigint[])
RETURNS TABLE (id bigint, name text, status text, labels text[], created_at timestamptz)
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    (SELECT t.id, t.name, t.status, t.labels, t.created_at FROM asynctaskd.all_tasks AS t
     WHERE t.id > after ORDER BY t.id DESC LIMIT most)
    UNION ALL
    SELECT t.id, t.name, t.status, t.labels, t.created_at FROM asynctaskd.all_tasks AS t WHERE t.id = ANY (passed_over);
END $$;

-- Events, the newest first, in the same way; name and labels of tasks that are forgotten are NULL.
CREATE FUNCTION asynctaskd.new_events(after bigint, most integer, passed_over bigint[])
RETURNS TABLE (id bigint, kind text, task_id bigint, at timestamptz, detail jsonb, name text, labels text[])
LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET jit = off
AS $$
BEGIN
    RETURN QUERY
    SELECT e.id, e.kind, e.task_id, e.at, e.detail, t.name, t.labels
    FROM (
        (SELECT * FROM asynctaskd.task_events AS n WHERE n.id > after ORDER BY n.id DESC LIMIT most)
        UNION ALL
        SELECT * FROM asynctaskd.task_events AS p WHERE p.id = ANY (passed_over)
    ) AS e LEFT JOIN LATERAL (
        SELECT a.name, a.labels FROM asynctaskd.all_tasks AS a WHERE a.id = e.task_id LIMIT 1
    ) AS t ON true;
END $$;

-- schema 1.16
--
-- How many slots the fleet could use, by label set: what an autoscaler asks.

-- Label sets with something ready, at most so many of each lane, and those of the first suspects; control tasks aside.
CREATE FUNCTION asynctaskd.ready_label_sets(most integer) RETURNS SETOF text
LANGUAGE sql STABLE AS $$
    WITH RECURSIVE normal (label_set, nth) AS (
        (SELECT t.label_set, 1 FROM asynctaskd.tasks AS t
         WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 ORDER BY t.label_set LIMIT 1)
        UNION ALL
        SELECT (SELECT t.label_set FROM asynctaskd.tasks AS t
                WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set > normal.label_set
                ORDER BY t.label_set LIMIT 1), normal.nth + 1
        FROM normal WHERE normal.label_set IS NOT NULL AND normal.nth < most
    ), strict (label_set, nth) AS (
        (SELECT t.label_set, 1 FROM asynctaskd.tasks AS t
         WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 ORDER BY t.label_set LIMIT 1)
        UNION ALL
        SELECT (SELECT t.label_set FROM asynctaskd.tasks AS t
                WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.label_set > strict.label_set
                ORDER BY t.label_set LIMIT 1), strict.nth + 1
        FROM strict WHERE strict.label_set IS NOT NULL AND strict.nth < most
    )
    SELECT label_set FROM normal WHERE label_set IS NOT NULL
    UNION
    SELECT label_set FROM strict WHERE label_set <> '!control'
    UNION
    SELECT label_set FROM (SELECT t.label_set FROM asynctaskd.tasks AS t
                           WHERE t.status = 'pending' AND t.losses >= 2 ORDER BY t.id LIMIT 100) AS suspects
    WHERE label_set <> '!control'
$$;

-- By label set: what runs, and what could start now if there were slots. Of each label set 10,000 tasks of a lane are
-- looked at, of all together about 30,000: no scaler needs to know more, and so it costs the same with a million.
-- Whoever may read the view need not be able to read tasks.
CREATE FUNCTION asynctaskd.count_desired_slots()
RETURNS TABLE (labels text[], running bigint, ready bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- Plans that depend on statistics would walk through the backlog.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    config asynctaskd.runtime_configs := asynctaskd.config_in_force();
    spare jsonb;  -- how many more may run, by limited label
    sets text[] := ARRAY(SELECT asynctaskd.ready_label_sets(1000));
    most bigint := least(10000, greatest(30000 / greatest(cardinality(sets), 1), 1));
    one record;
BEGIN
    SELECT coalesce(jsonb_object_agg(limited, asynctaskd.newest_limit(limited) - held.n), '{}') INTO spare
    FROM jsonb_object_keys(coalesce(config.limits, '{}')) AS limited
         CROSS JOIN LATERAL (
             SELECT count(*) AS n FROM asynctaskd.tasks AS t
             WHERE t.worker_id IS NOT NULL AND limited = ANY (string_to_array(t.label_set, ','))) AS held;
    FOR one IN
        WITH held AS (
            SELECT t.label_set, count(*) AS running FROM asynctaskd.tasks AS t
            WHERE t.worker_id IS NOT NULL AND t.label_set <> '!control' GROUP BY t.label_set
        ), open AS (
            SELECT s.label_set FROM unnest(sets) AS s(label_set)
            WHERE NOT string_to_array(s.label_set, ',') && coalesce(config.paused_labels, '{}')
        ), waiting AS (
            SELECT open.label_set, t.name, t.deadline FROM open CROSS JOIN LATERAL (
                SELECT n.name, n.deadline FROM asynctaskd.tasks AS n  -- in no order: which ones doesn't matter
                WHERE n.status = 'pending' AND n.losses < 2 AND n.priority = 0 AND n.label_set = open.label_set
                LIMIT most) AS t
            UNION ALL
            SELECT open.label_set, t.name, t.deadline FROM open CROSS JOIN LATERAL (
                SELECT u.name, u.deadline FROM asynctaskd.tasks AS u
                WHERE u.status = 'pending' AND u.losses < 2 AND u.priority > 0 AND u.label_set = open.label_set
                LIMIT most) AS t
            WHERE coalesce(config.max_strict_percentage, 100) > 0
            UNION ALL
            SELECT t.label_set, t.name, t.deadline
            FROM (SELECT * FROM asynctaskd.tasks AS s WHERE s.status = 'pending' AND s.losses >= 2
                  ORDER BY s.id LIMIT 100) AS t
            WHERE t.label_set IN (SELECT open.label_set FROM open)
        ), counted AS (
            SELECT waiting.label_set, count(*) AS ready FROM waiting
            WHERE waiting.name <> ALL (coalesce(config.paused_names, '{}'))
              AND (waiting.deadline IS NULL OR waiting.deadline > now_is)
            GROUP BY waiting.label_set
        )
        SELECT label_set, coalesce(held.running, 0) AS running, coalesce(counted.ready, 0) AS ready
        FROM held FULL JOIN counted USING (label_set)
        ORDER BY label_set
    LOOP
        labels := string_to_array(one.label_set, ',');
        running := one.running;
        -- What one label set may still start, the next one that carries the same limited label may not.
        ready := least(one.ready, (SELECT min(greatest(s.value::bigint, 0))
                                   FROM jsonb_each_text(spare) AS s WHERE s.key = ANY (labels)));
        spare := coalesce((SELECT jsonb_object_agg(s.key, s.value::bigint
                                                   - CASE WHEN s.key = ANY (labels) THEN ready ELSE 0 END)
                           FROM jsonb_each_text(spare) AS s), '{}');
        RETURN NEXT;
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION asynctaskd.count_desired_slots() FROM PUBLIC;

CREATE VIEW asynctaskd.desired_slots AS
SELECT labels, running, ready, running + ready AS slots FROM asynctaskd.count_desired_slots();

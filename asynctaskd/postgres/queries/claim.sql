-- Claim up to $4 tasks for a worker whose lease holds: the strict lane first, then each group's share.
-- $1 worker_id, $2 the worker's labels, $3 strict tasks at most, $4 tasks at most,
-- $5 label sets of the normal lane, $6 their groups, $7 what each group may have, $8 rows at most of each set,
-- $9 the groups' weights, $10 how many picks each group is behind its ideal share,
-- $11 and $12 after which place (-weight) and id of each set,
-- $13 tasks that this worker lost and whose handlers have not stopped, $14 suspects at most: tasks that have lost
-- their worker twice in a row, $15 nothing but suspects?
-- $16 0, or where walking through what is dead would take long: after which id tasks are new; strict ones are looked for
-- there, and in the label sets $17 after the place (-priority) $18 and id $19 of each, and those of more weight nowhere
-- $20 labels whose tasks may not run now, $21 limited labels, $22 how many more of each may run,
-- $23 names that are paused: their tasks are put aside as paused instead, and are in the answer with that reason;
-- but for those of which only a failure hook is left
--
-- Rows are locked where they are found, so that workers beside each other find different ones. Where a group has
-- several label sets, more rows are locked than taken; their locks end with this statement.
WITH RECURSIVE strict_sets (label_set) AS (
    (SELECT label_set FROM asynctaskd.tasks
     WHERE $16 = 0 AND status = 'pending' AND losses < 2 AND priority > 0 ORDER BY label_set LIMIT 1)
    UNION ALL
    SELECT (SELECT t.label_set FROM asynctaskd.tasks AS t
            WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.label_set > strict_sets.label_set
            ORDER BY t.label_set LIMIT 1)
    FROM strict_sets WHERE strict_sets.label_set IS NOT NULL
), known AS (
    SELECT label_set, -2147483648 AS after_place, 0 AS after_id FROM strict_sets
    WHERE string_to_array(label_set, ',') <@ $2::text[] AND NOT string_to_array(label_set, ',') && $20::text[]
    UNION ALL
    SELECT * FROM unnest($17::text[], $18::integer[], $19::bigint[]) AS kept(label_set, after_place, after_id)
    WHERE NOT string_to_array(label_set, ',') && $20::text[]
), urgent AS MATERIALIZED (
    SELECT found.*
    FROM known CROSS JOIN LATERAL (
        SELECT t.id, -t.priority AS place, t.label_set FROM asynctaskd.tasks AS t
        WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.label_set = known.label_set
          AND (-t.priority, t.id) > (known.after_place, known.after_id) AND t.id <> ALL ($13::bigint[])
        ORDER BY -t.priority, t.id LIMIT $3 FOR UPDATE SKIP LOCKED
    ) AS found
    WHERE $3 > 0 AND NOT $15::boolean
    UNION
    SELECT newcomers.*
    FROM (SELECT t.id, -t.priority AS place, t.label_set FROM asynctaskd.tasks AS t
          WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.id > $16
            AND t.id <= (SELECT max(id)
                         FROM (SELECT n.id FROM asynctaskd.tasks AS n
                               WHERE n.status = 'pending' AND n.losses < 2 AND n.priority > 0 AND n.id > $16
                               ORDER BY n.id LIMIT 100) AS hundred)
            AND string_to_array(t.label_set, ',') <@ $2::text[] AND NOT string_to_array(t.label_set, ',') && $20::text[]
            AND t.id <> ALL ($13::bigint[])
          ORDER BY -t.priority, t.id LIMIT $3 FOR UPDATE SKIP LOCKED) AS newcomers
    WHERE $3 > 0 AND NOT $15::boolean AND $16::bigint > 0
), strict AS MATERIALIZED (
    SELECT id, label_set, place FROM urgent ORDER BY place, id LIMIT $3
), suspect AS MATERIALIZED (
    SELECT id, label_set FROM asynctaskd.tasks
    WHERE status = 'pending' AND losses >= 2 AND string_to_array(label_set, ',') <@ $2::text[]
      AND NOT string_to_array(label_set, ',') && $20::text[] AND name <> ALL ($23::text[])
      AND (priority = 0 OR (SELECT count(*) FROM strict) < $3) AND id <> ALL ($13::bigint[])
    ORDER BY id LIMIT least($14, $4 - (SELECT count(*) FROM strict)) FOR UPDATE SKIP LOCKED
), ranked AS MATERIALIZED (
    SELECT found.id, wanted.label_set, wanted.quota, wanted.weight, wanted.standing,
           row_number() OVER (PARTITION BY wanted.lane_group ORDER BY found.place, found.id) AS nth
    FROM unnest($5::text[], $6::text[], $7::integer[], $8::integer[], $9::integer[], $10::float8[],
                $11::integer[], $12::bigint[])
             AS wanted(label_set, lane_group, quota, row_limit, weight, standing, after_place, after_id)
         CROSS JOIN LATERAL (
             SELECT t.id, -t.weight AS place FROM asynctaskd.tasks AS t
             WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = wanted.label_set
               AND t.id <> ALL ($13::bigint[])
               AND (-t.weight, t.id) > (
                   CASE WHEN (SELECT h.id FROM asynctaskd.tasks AS h
                              WHERE h.status = 'pending' AND h.losses < 2 AND h.priority = 0
                                AND h.label_set = wanted.label_set AND -h.weight < wanted.after_place AND $16 = 0
                              LIMIT 1) IS NULL
                        THEN wanted.after_place ELSE -2147483648 END, wanted.after_id)
             ORDER BY -t.weight, t.id LIMIT wanted.row_limit FOR UPDATE SKIP LOCKED
         ) AS found
), normal AS MATERIALIZED (
    SELECT ranked.id, ranked.label_set, (ranked.nth - ranked.standing) / ranked.weight AS turn FROM ranked
    WHERE ranked.nth <= ranked.quota
    ORDER BY turn, ranked.id
    LIMIT $4 - (SELECT count(*) FROM strict) - (SELECT count(*) FROM suspect)
), chosen AS MATERIALIZED (
    SELECT id, label_set, 1 AS lane, place::float8 AS turn FROM strict
    UNION ALL SELECT id, label_set, 2, 0 FROM suspect  -- one at most: behind a limit it would wait for all others
    UNION ALL SELECT id, label_set, 3, turn FROM normal
), taken AS MATERIALIZED (
    -- What only some claims need is in functions: plans cost by what is in them, also where that is never run.
    SELECT id FROM chosen WHERE $21::text[] = '{}'
    UNION ALL
    SELECT asynctaskd.within_limits(ARRAY(SELECT id FROM chosen ORDER BY lane, turn, id),
                                    ARRAY(SELECT label_set FROM chosen ORDER BY lane, turn, id), $21, $22::integer[])
    WHERE $21 <> '{}'
), left_over AS MATERIALIZED (
    -- Whoever looked meanwhile skipped these as locked: tell them, once this commits.
    SELECT asynctaskd.announce(array_agg(DISTINCT label_set))
    FROM (SELECT id, label_set FROM urgent UNION ALL SELECT id, label_set FROM ranked) AS locked
    WHERE id NOT IN (SELECT id FROM taken)
), told AS MATERIALIZED (
    SELECT asynctaskd.tell_put_aside($1, ARRAY(SELECT id FROM taken), $23::text[]) WHERE $23 <> '{}'
)
UPDATE asynctaskd.tasks AS t
SET status = CASE WHEN t.name = ANY ($23) AND t.requested IS NULL THEN 'paused' ELSE 'running' END,
    worker_id = CASE WHEN t.name = ANY ($23) AND t.requested IS NULL THEN NULL ELSE $1 END,
    claim_token = t.claim_token + (t.name <> ALL ($23) OR t.requested IS NOT NULL)::integer,
    claimed_at = CASE WHEN t.name = ANY ($23) AND t.requested IS NULL THEN t.claimed_at ELSE (SELECT asynctaskd.clock()) END,
    attempts = t.attempts + (t.name <> ALL ($23) OR t.requested IS NOT NULL)::integer,
    -- By its reason the worker knows what isn't its own; one that was resumed by itself may have it still.
    reason = CASE WHEN t.name = ANY ($23) AND t.requested IS NULL THEN 'name paused' ELSE nullif(t.reason, 'name paused') END
WHERE t.id = ANY (ARRAY(SELECT id FROM taken))
  AND (SELECT count(*) FROM left_over) = 1 AND (SELECT count(*) FROM told) <= 1
  AND (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = $1)
RETURNING t.id, t.claim_token, t.name, t.payload, t.label_set, t.priority, t.weight, t.attempts, t.failures,
          t.losses, t.max_attempts, t.timeout, t.retry, t.deadline, t.claimed_at,
          CASE WHEN t.reason = 'unknown_name' THEN t.created_at END, t.serial_key, t.unique_tag, t.reason,
          date_part('epoch', t.claimed_at - greatest(t.created_at, t.run_at)),
          left(t.metadata ->> 'traceparent', 128), left(t.metadata ->> 'tracestate', 1024)

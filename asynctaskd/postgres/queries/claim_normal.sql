-- Claim from the normal lane where nothing else asks for attention: nothing at all while a strict task waits.
-- $1 worker_id, $2 label sets, one a group, $3 how many of each, $4 and $5 after which place (-weight) and id,
-- $6 strict tasks at most, $7 suspects at most: where that isn't 0, not while one waits; $8 0, or where walking
-- through what is dead would take long: those of more weight aren't looked for; $9 after which id strict tasks are
-- looked for, $10 strict label sets that may not run now
--
-- What claim.sql does for all cases, for the one that nearly every claim is, at a third of the cost.
UPDATE asynctaskd.tasks AS t
SET status = 'running', worker_id = $1, claim_token = t.claim_token + 1, claimed_at = (SELECT asynctaskd.clock()),
    attempts = t.attempts + 1
WHERE t.id = ANY (ARRAY(
    SELECT found.id
    FROM unnest($2::text[], $3::integer[], $4::integer[], $5::bigint[])
             AS wanted(label_set, quota, after_place, after_id)
         CROSS JOIN LATERAL (
             SELECT t.id FROM asynctaskd.tasks AS t
             WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = wanted.label_set
               AND (-t.weight, t.id) > (
                   -- What has more weight than where the last claim stopped comes first all the same.
                   CASE WHEN (SELECT h.id FROM asynctaskd.tasks AS h
                              WHERE h.status = 'pending' AND h.losses < 2 AND h.priority = 0
                                AND h.label_set = wanted.label_set AND -h.weight < wanted.after_place AND $8::bigint = 0
                              LIMIT 1) IS NULL
                        THEN wanted.after_place ELSE -2147483648 END, wanted.after_id)
             ORDER BY -t.weight, t.id LIMIT wanted.quota FOR UPDATE SKIP LOCKED
         ) AS found
    WHERE (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = $1)
      AND ($6::integer = 0 OR (SELECT s.id FROM asynctaskd.tasks AS s
                               WHERE s.status = 'pending' AND s.losses < 2 AND s.priority > 0 AND s.id > $9
                                 AND s.label_set <> ALL ($10::text[])
                               LIMIT 1) IS NULL)
      AND ($7::integer = 0 OR (SELECT s.id FROM asynctaskd.tasks AS s
                               WHERE s.status = 'pending' AND s.losses >= 2 LIMIT 1) IS NULL)
))
RETURNING t.id, t.claim_token, t.name, t.payload, t.label_set, t.priority, t.weight, t.attempts, t.failures,
          t.losses, t.max_attempts, t.timeout, t.retry, t.deadline, t.claimed_at,
          CASE WHEN t.reason = 'unknown_name' THEN t.created_at END, t.serial_key, t.unique_tag, t.reason,
          date_part('epoch', t.claimed_at - greatest(t.created_at, t.run_at)),
          left(t.metadata ->> 'traceparent', 128), left(t.metadata ->> 'tracestate', 1024)

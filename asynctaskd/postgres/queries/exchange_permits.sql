-- A worker says how many tasks of limited labels it holds and would like to; returns a row a label: what it may run, and
-- whether there are workers that don't know of the limit yet.
-- $1 worker_id, $2 the number of this request, $3 labels, $4 their limits as the worker knows them, $5 how many it
-- holds of each, $6 how many it would use
SELECT asked.label, given.granted, given.target, EXISTS (
    SELECT FROM asynctaskd.workers AS w
    WHERE w.stopped_at IS NULL AND w.lost_at IS NULL AND w.id <> $1 AND asked.label = ANY (w.labels)
      AND NOT EXISTS (SELECT FROM asynctaskd.label_permits AS p WHERE p.label = asked.label AND p.worker_id = w.id))
FROM (SELECT * FROM unnest($3::text[], $4::integer[], $5::integer[], $6::integer[]) AS one(label, most, held, wants)
      ORDER BY label COLLATE "C") AS asked  -- in one order, since each is locked until the end
     CROSS JOIN LATERAL asynctaskd.exchange_permits($1, $2, asked.label, asked.most, asked.held, asked.wants) AS given
WHERE (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = $1)

-- Workers that neither stopped nor are known to be lost, by their id, their name or the label they go by.
-- $1 id or name (worker.id)
SELECT id, name, process, place, hostname, pid, renewed_at, asynctaskd.is_live(w) FROM asynctaskd.workers AS w
WHERE stopped_at IS NULL AND lost_at IS NULL
  AND (id = $1 OR name = $1 OR labels @> ARRAY['worker:' || $1::text])
ORDER BY started_at

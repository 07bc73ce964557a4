-- The workers of a name that neither stopped nor are known to be lost.
-- $1 name (worker.id)
SELECT id, name, process, place, hostname, pid, renewed_at, asynctaskd.is_live(w) FROM asynctaskd.workers AS w
WHERE name = $1 AND stopped_at IS NULL AND lost_at IS NULL

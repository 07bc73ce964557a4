-- Tell how many tasks a worker has claimed, where somebody wants to know. Returns what watchers want.
-- $1 worker_id, $2 claims by group since it was first watched (JSON)
WITH wanted AS MATERIALIZED (
    SELECT DISTINCT wants FROM asynctaskd.watchers WHERE expires_at > asynctaskd.clock()
), told AS (
    INSERT INTO asynctaskd.claims_told (worker_id, claims, told_at)
    SELECT id, $2::jsonb, asynctaskd.clock() FROM asynctaskd.workers
    WHERE id = $1 AND EXISTS (SELECT FROM wanted WHERE wants = 'shares')
    ON CONFLICT (worker_id) DO UPDATE SET claims = excluded.claims, told_at = excluded.told_at
)
SELECT wants FROM wanted

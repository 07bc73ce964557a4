-- Renew a lease that still holds; no row means that it was lost. Returns whether it has something to apply
-- or to answer, whether operators ask something of it, and whether somebody watches.
-- $1 worker_id, $2 lease, $3 tasks running, $4 the identity of the configuration that it applies,
-- $5 what blocks its loop (JSON), $6 executions that have ended since it is there, $7 those of them that failed,
-- $8 its labels, $9 its concurrency, $10 its own share of slots for strict tasks (all three may be NULL: as before)
UPDATE asynctaskd.workers AS w
SET expires_at = asynctaskd.clock() + $2, renewed_at = asynctaskd.clock(), running = $3, stall = $5, finished = $6, failed = $7,
    labels = coalesce($8::text[], labels), concurrency = coalesce($9, concurrency),
    max_strict_percentage = coalesce($10, max_strict_percentage)
WHERE id = $1 AND asynctaskd.is_live(w)
RETURNING
    -- The newest that is for it isn't the one that it applies, or its answer got lost with the last primary.
    (SELECT newest.identity IS DISTINCT FROM $4 AND (newest.identity = w.rejected_config) IS NOT TRUE
     FROM (SELECT (SELECT c.identity FROM asynctaskd.runtime_configs AS c WHERE c.version = greatest(
               (SELECT c.version FROM asynctaskd.runtime_configs AS c WHERE reach = 'all'
                ORDER BY c.version DESC LIMIT 1),
               (SELECT c.version FROM asynctaskd.runtime_configs AS c WHERE reach = 'canary' AND canary_worker = $1
                ORDER BY c.version DESC LIMIT 1)))) AS newest (identity))
    OR w.applied_config IS DISTINCT FROM $4,
    (SELECT t.id FROM asynctaskd.tasks AS t WHERE t.worker_id = $1 AND t.requested IS NOT NULL LIMIT 1) IS NOT NULL
    OR (SELECT task_id FROM asynctaskd.receipts
        WHERE action = 'run_now' AND outcome IS NULL AND delivered_at IS NULL LIMIT 1) IS NOT NULL,
    (SELECT v.id FROM asynctaskd.watchers AS v WHERE v.expires_at > asynctaskd.clock() LIMIT 1) IS NOT NULL

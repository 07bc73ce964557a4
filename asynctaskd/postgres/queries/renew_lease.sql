-- Renew a lease that still holds; no row means that it was lost. Returns the newest configuration's version.
-- $1 worker_id, $2 lease, $3 tasks running, $4 configuration version applied, $5 what blocks its loop (JSON)
UPDATE asynctaskd.workers AS w
SET expires_at = asynctaskd.clock() + $2, renewed_at = asynctaskd.clock(), running = $3,
    applied_config_version = greatest(applied_config_version, $4), stall = $5
WHERE id = $1 AND asynctaskd.is_live(w)
RETURNING (SELECT coalesce(max(version), 0) FROM asynctaskd.runtime_configs)

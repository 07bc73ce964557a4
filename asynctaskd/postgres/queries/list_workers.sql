-- Workers, the newest first.
SELECT id, name, CASE WHEN stopped_at IS NOT NULL THEN 'stopped' WHEN asynctaskd.is_live(w) THEN 'live'
                      ELSE 'lost' END AS status,
       hostname, pid, version, labels, concurrency, running, idle, applied_config_version, started_at, renewed_at,
       expires_at, stopped_at, lost_at, lost_because, stall::text
FROM asynctaskd.workers AS w ORDER BY started_at DESC

-- Workers, the newest first.
SELECT id, name, CASE WHEN stopped_at IS NOT NULL THEN 'stopped' WHEN asynctaskd.is_live(w) THEN 'live'
                      ELSE 'lost' END AS status,
       hostname, pid, version, labels, concurrency, max_strict_percentage, running, finished, failed, idle,
       asynctaskd.known_version(applied_config_version, applied_config) AS applied_config_version,
       asynctaskd.known_version(rejected_config_version, rejected_config) AS rejected_config_version, rejected_because,
       started_at, renewed_at, expires_at, stopped_at, lost_at, lost_because, stall::text
FROM asynctaskd.workers AS w ORDER BY started_at DESC

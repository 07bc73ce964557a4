-- What each live worker answered, beside the newest version that is for all; where none lives, a row without a worker.
-- $1 the identity of the version that is asked about: once that is lost, nobody has applied it, whatever its number
SELECT newest.version AS newest, w.id, w.hostname, w.pid,
       CASE WHEN is_there THEN asynctaskd.known_version(w.applied_config_version, w.applied_config) ELSE 0 END AS applied,
       CASE WHEN is_there THEN asynctaskd.known_version(w.rejected_config_version, w.rejected_config) END AS rejected,
       w.rejected_because AS because, w.finished, w.failed, w.process, w.place
FROM (SELECT coalesce((SELECT version FROM asynctaskd.runtime_configs WHERE reach = 'all'
                       ORDER BY version DESC LIMIT 1), 0) AS version,
             EXISTS (SELECT FROM asynctaskd.runtime_configs WHERE identity = $1) AS is_there) AS newest
     LEFT JOIN asynctaskd.workers AS w ON asynctaskd.is_live(w)
ORDER BY w.started_at

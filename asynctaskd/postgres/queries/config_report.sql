-- How far a control task is, with the version that it has published and the worker that is trying it alone; no row where
-- nobody knows it.
-- $1 the task's id
SELECT status, result::text, last_error, reason, timeout, published.version, published.identity,
       (SELECT canary_worker FROM asynctaskd.runtime_configs
        WHERE request_id = asynctaskd.config_request($1) AND reach = 'canary') AS canary
FROM asynctaskd.all_tasks LEFT JOIN (
         SELECT version, identity FROM asynctaskd.runtime_configs WHERE request_id = asynctaskd.config_request($1)
         UNION ALL
         SELECT version, identity FROM asynctaskd.runtime_configs WHERE settled_by = asynctaskd.config_request($1)
     ) AS published ON true
WHERE id = $1 AND name = 'updateWorkerRuntimeConfig'

-- The newest runtime configuration that is for a worker: for all, or for it alone while it tries it; and its last answers.
-- $1 worker_id; NULL: one that isn't registered yet
SELECT version, max_strict_percentage, default_weight, weights::text, limits::text, max_run_times::text, max_attempts::text,
       paused_labels, paused_names, request_id, identity, (SELECT applied_config FROM asynctaskd.workers WHERE id = $1) AS applied_config,
       (SELECT rejected_config FROM asynctaskd.workers WHERE id = $1) AS rejected_config
FROM asynctaskd.runtime_configs
WHERE version = greatest(
    (SELECT version FROM asynctaskd.runtime_configs WHERE reach = 'all' ORDER BY version DESC LIMIT 1),
    (SELECT version FROM asynctaskd.runtime_configs WHERE reach = 'canary' AND canary_worker = $1
     ORDER BY version DESC LIMIT 1))

-- Versions of the runtime configuration, the newest first, JSON as text.
-- $1 at most so many
SELECT version, created_at, created_by, changes::text, based_on, reach, canary_worker, canary_until, expires_at,
       expired_at, max_strict_percentage, default_weight, weights::text, limits::text, max_run_times::text,
       max_attempts::text, paused_labels, paused_names
FROM asynctaskd.runtime_configs ORDER BY version DESC LIMIT $1

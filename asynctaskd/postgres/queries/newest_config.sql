-- The newest runtime configuration.
SELECT version, max_strict_percentage, default_weight, weights, limits, paused_labels, paused_names
FROM asynctaskd.runtime_configs ORDER BY version DESC LIMIT 1

-- How this schema's tables are cleaned up: whether autovacuum may, how many dead rows it lets gather at their present size, how many
-- there are, and whether rows change as often as to call the table hot.
SELECT c.relname::text AS name, coalesce(options.enabled, true) AS is_enabled,
       coalesce(options.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
           + coalesce(options.scale, current_setting('autovacuum_vacuum_scale_factor')::float8)
           * greatest(c.reltuples, s.n_live_tup, 0) AS allowed,
       s.n_dead_tup AS dead,
       c.relname IN ('tasks', 'workers')
           OR s.n_tup_upd + s.n_tup_del > greatest(10 * s.n_live_tup, 100000) AS is_hot
FROM pg_class AS c
     JOIN pg_stat_all_tables AS s ON s.relid = c.oid
     CROSS JOIN LATERAL (
         SELECT max(option_value) FILTER (WHERE option_name = 'autovacuum_enabled')::boolean AS enabled,
                max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_threshold')::float8 AS threshold,
                max(option_value) FILTER (WHERE option_name = 'autovacuum_vacuum_scale_factor')::float8 AS scale
         FROM pg_options_to_table(c.reloptions)) AS options
WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
ORDER BY coalesce(options.enabled, true), s.n_dead_tup DESC

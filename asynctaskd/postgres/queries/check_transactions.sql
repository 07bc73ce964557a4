-- Sessions of any database that have a transaction open, the oldest first; columns as in check_horizon.sql.
SELECT 'session' AS kind, pid::text AS name, usename::text AS owner, nullif(application_name, '') AS application, state, pid,
       extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds, 0 AS transactions
FROM pg_stat_activity
WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY xact_start

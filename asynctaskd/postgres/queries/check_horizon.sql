-- Who keeps the server from cleaning up rows of this database, the one who began first at the head: what it is and its name, whose,
-- by which application, in which state, its process, since how many seconds and transactions (seconds NULL: nobody knows).
SELECT kind, name, owner, application, state, pid, seconds, transactions
FROM (
    SELECT CASE WHEN a.backend_type = 'walsender' THEN 'standby' ELSE 'session' END AS kind,
           a.pid::text AS name, a.usename::text AS owner, nullif(a.application_name, '') AS application, a.state, a.pid,
           extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
           greatest(age(a.backend_xmin), age(a.backend_xid)) AS transactions
    FROM pg_stat_activity AS a
    WHERE (a.datname = current_database() OR a.backend_type = 'walsender') AND a.pid <> pg_backend_pid()
      AND coalesce(a.backend_xmin, a.backend_xid) IS NOT NULL
      -- What cleans up is no obstacle to that.
      AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
    UNION ALL
    SELECT 'prepared transaction', quote_literal(p.gid), p.owner::text, NULL, NULL, NULL,
           extract(epoch FROM clock_timestamp() - p.prepared)::float8, age(p.transaction)
    FROM pg_prepared_xacts AS p WHERE p.database = current_database()
    UNION ALL
    -- That of a logical one only holds the catalogue.
    SELECT 'replication slot', s.slot_name::text, NULL, NULL, CASE WHEN s.active THEN 'active' ELSE 'inactive' END,
           s.active_pid, NULL, age(s.xmin)
    FROM pg_replication_slots AS s WHERE s.xmin IS NOT NULL
) AS holders
ORDER BY transactions DESC, seconds DESC NULLS LAST

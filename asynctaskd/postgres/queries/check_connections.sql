-- Which bound leaves us the fewest connections, how many that is, and how many of them others than asynctaskd hold.
WITH bounds (what, allowed, datname, usename) AS (
    SELECT 'max_connections',
           current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
               - coalesce(current_setting('reserved_connections', true)::integer, 0),
           NULL::name, NULL::name
    UNION ALL
    SELECT 'the database''s CONNECTION LIMIT', datconnlimit, datname, NULL
    FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0
    UNION ALL
    SELECT 'the role''s CONNECTION LIMIT', rolconnlimit, NULL, rolname
    FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0
)
SELECT b.what, b.allowed, held.others::integer
FROM bounds AS b
     CROSS JOIN LATERAL (
         -- Background processes have neither user nor database, or aren't told from others where this role sees little.
         SELECT count(*) AS others FROM pg_stat_activity AS a
         WHERE a.application_name <> 'asynctaskd' AND a.usesysid IS NOT NULL AND a.datid IS NOT NULL
           AND coalesce(a.backend_type, 'client backend') = 'client backend'
           AND a.datname = coalesce(b.datname, a.datname) AND a.usename = coalesce(b.usename, a.usename)) AS held
ORDER BY b.allowed - held.others LIMIT 1

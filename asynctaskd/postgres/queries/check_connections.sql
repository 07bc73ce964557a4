-- How many connections the server has for ordinary roles, and how many are taken.
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
           - coalesce(current_setting('reserved_connections', true)::integer, 0),
       (SELECT sum(numbackends)::integer FROM pg_stat_database)

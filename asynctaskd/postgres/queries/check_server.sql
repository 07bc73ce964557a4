-- What kind of server answers, who we are there, and what time it is.
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
       current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS is_standby,
       current_setting('transaction_read_only')::boolean AS is_read_only, quote_ident(current_user) AS role,
       pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all, clock_timestamp() AS now

-- What kind of server answers, and what time it is there.
SELECT current_setting('server_version'), current_setting('server_version_num')::integer,
       current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only')::boolean,
       clock_timestamp()

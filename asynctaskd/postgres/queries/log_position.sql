-- Where the server's write-ahead log is: cluster, timeline, and the bytes that are safe on disk.
SELECT (SELECT system_identifier FROM pg_control_system()), ('x' || left(pg_walfile_name(lsn), 8))::bit(32)::integer, lsn
FROM pg_current_wal_flush_lsn() AS lsn

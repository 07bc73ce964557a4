-- The fleet and its database: how many workers live, for how many seconds the oldest transaction has been open, and how
-- many transactions ago the oldest snapshot was taken for which dead rows are kept; as far as this role may see others.
SELECT (SELECT count(*) FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w)),
       (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'),
       (SELECT coalesce(max(pins.age), 0)
        FROM (SELECT age(backend_xmin) AS age FROM pg_stat_activity
              WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
              UNION ALL SELECT age(xmin) FROM pg_replication_slots
              UNION ALL SELECT age(catalog_xmin) FROM pg_replication_slots
              UNION ALL SELECT age(transaction) FROM pg_prepared_xacts) AS pins)

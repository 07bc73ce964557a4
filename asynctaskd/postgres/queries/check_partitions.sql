-- The tables of finished tasks that should have been dropped a day ago, and whether they are detached already.
SELECT c.relname::text, i.inhparent IS NULL OR i.inhdetachpending
FROM pg_class AS parent
     JOIN pg_class AS c USING (relnamespace)
     LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
WHERE parent.oid = 'asynctaskd.finished_tasks'::regclass
  AND c.relkind = 'r' AND c.relname ~ '^finished_tasks_[0-9]{8}$'
  AND right(c.relname::text, 8)
      < to_char((asynctaskd.clock() AT TIME ZONE 'UTC')::date - 1, 'YYYYMMDD') COLLATE "C"
ORDER BY c.relname

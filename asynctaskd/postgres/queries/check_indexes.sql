-- This schema's indexes that are not valid and that nobody is making just now.
SELECT i.indexrelid::regclass::text
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
  AND NOT (i.indisvalid AND i.indisready)
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid)
ORDER BY 1

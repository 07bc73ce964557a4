-- The tables of finished tasks whose day has come, each with the statement that detaches it.
-- There is none where it is detached already: whoever did that didn't come to drop it.
--
-- A partition's days are what its bound says. Only its owner may detach it CONCURRENTLY.
-- First those that are only to be dropped, then one whose detaching was interrupted: no other can be detached before.
SELECT c.relname::text,
       CASE WHEN i.inhparent IS NULL THEN NULL
            WHEN pg_has_role(parent.relowner, 'USAGE') AND pg_has_role(c.relowner, 'USAGE') THEN format(
                'ALTER TABLE asynctaskd.finished_tasks DETACH PARTITION asynctaskd.%I %s', c.relname,
                CASE WHEN i.inhdetachpending THEN 'FINALIZE' ELSE 'CONCURRENTLY' END)
            ELSE format('SELECT asynctaskd.detach_finished_partition(%L)', c.relname) END
FROM pg_class AS parent
     JOIN pg_class AS c USING (relnamespace)
     LEFT JOIN pg_inherits AS i ON i.inhrelid = c.oid
     CROSS JOIN (SELECT asynctaskd.forgotten_day() AS today) AS clock
WHERE parent.oid = 'asynctaskd.finished_tasks'::regclass
  AND c.relkind = 'r' AND c.relname ~ '^finished_tasks_[0-9]{8}$'
  AND CASE WHEN i.inhparent = parent.oid
           THEN (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \(''(.*)''\)'))[1]::date <= today + 1
           WHEN NOT c.relispartition
           THEN right(c.relname::text, 8) <= to_char(today, 'YYYYMMDD') COLLATE "C" END
ORDER BY i.inhdetachpending DESC, c.relname

-- This schema's sequences: their names, the last number given out (NULL where this role may not look), and the last there is.
SELECT c.relname::text,
       CASE WHEN has_sequence_privilege(c.oid, 'SELECT,USAGE') THEN coalesce(pg_sequence_last_value(c.oid), 0) END,
       s.seqmax
FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
ORDER BY c.relname

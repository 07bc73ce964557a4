-- The tables of a schema that don't belong to its owner's role, or all where there is no such role yet.
-- $1 schema, $2 the owner's role
SELECT relname::text
FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace
WHERE nspname = $1 AND relkind IN ('r', 'p') AND relowner IS DISTINCT FROM to_regrole($2)::oid
ORDER BY relname

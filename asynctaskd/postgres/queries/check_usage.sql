-- Whether the current role may name what is in this schema; false too where there is none.
--
-- $1 schema
SELECT coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = $1), false)

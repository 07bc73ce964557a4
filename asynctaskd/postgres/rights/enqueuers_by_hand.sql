-- The roles that were given the right to write tasks, and are no enqueuers yet.
-- $1 schema, $2 the roles of the schema
SELECT grantee::regrole::text
FROM pg_class JOIN pg_namespace AS n ON n.oid = relnamespace CROSS JOIN LATERAL aclexplode(relacl)
WHERE nspname = $1 AND relname = 'tasks' AND privilege_type = 'INSERT' AND grantee NOT IN (0, relowner)
  AND grantee::regrole::text <> ALL ($2::text[])
  AND NOT EXISTS (SELECT FROM pg_auth_members AS m
                  WHERE m.member = grantee AND m.roleid = to_regrole(nspname || '_enqueuer')::oid)
ORDER BY 1

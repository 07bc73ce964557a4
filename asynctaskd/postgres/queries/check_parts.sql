-- Which of the roles that `asynctaskd migrate --roles` makes the current role is a member of.
SELECT part FROM unnest('{worker,enqueuer,operator,viewer}'::text[]) AS part
     JOIN pg_roles ON rolname = 'asynctaskd_' || part
WHERE pg_has_role(pg_roles.oid, 'USAGE')

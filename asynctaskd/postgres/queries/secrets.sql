-- The paths of secret fields, by name of task (JSON); names without any are left out.
-- $1 names
SELECT asked, paths::text
FROM unnest($1::text[]) AS asked
     LEFT JOIN asynctaskd.definitions AS d ON d.name = asked
     CROSS JOIN LATERAL (
         SELECT CASE WHEN d.name IS NULL THEN (asynctaskd.route_of(asked)).secrets ELSE d.secrets END AS paths
     ) AS said
WHERE paths IS NOT NULL

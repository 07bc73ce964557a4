-- What was changed by hand, the newest first.
-- $1 only rows before this id (NULL: the newest), $2 rows at most
SELECT id, at, actor, address, db_user, action, target::text, before::text, after::text, outcome
FROM asynctaskd.audit WHERE $1::bigint IS NULL OR id < $1 ORDER BY id DESC LIMIT $2

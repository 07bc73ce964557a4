-- Tasks that were enqueued of late, the newest first: those above an id, and those of some ids that weren't visible yet.
-- $1 after which id, $2 rows at most, $3 ids that were passed over
SELECT id, name, status, labels, created_at FROM asynctaskd.new_tasks($1, $2, $3)

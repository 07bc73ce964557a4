-- What has happened to tasks of late, beside ordinary claims and completions, the newest first: events above an id, and
-- those of some ids that weren't visible yet.
-- $1 after which id, $2 rows at most, $3 ids that were passed over
SELECT id, kind, task_id, at, detail::text, name, labels FROM asynctaskd.new_events($1, $2, $3)

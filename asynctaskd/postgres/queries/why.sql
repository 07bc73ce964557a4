-- The one reason why a task isn't running.
-- $1 task id
SELECT reason, explanation, remedy, detail::text FROM asynctaskd.why($1)

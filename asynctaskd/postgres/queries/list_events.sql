-- What happened to a task beside its ordinary claims and its completion, in order.
-- $1 task id
SELECT kind, claim_token, claimed_at, at, detail::text FROM asynctaskd.task_events WHERE task_id = $1 ORDER BY id

-- What happened to a task beside its ordinary claims and its completion, in order, without the texts of errors.
-- $1 task id
SELECT kind, claim_token, claimed_at, at, detail::text FROM asynctaskd.event_list WHERE task_id = $1 ORDER BY id

-- Whether a task still runs under a claim: a row if it does.
-- $1 id, $2 claim token
SELECT id FROM asynctaskd.tasks WHERE id = $1 AND claim_token = $2 AND status = 'running'

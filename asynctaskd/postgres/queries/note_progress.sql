-- Write down how far an execution is, if its claim still stands.
-- $1 id, $2 claim token, $3 progress (JSON)
UPDATE asynctaskd.tasks SET progress = $3 WHERE id = $1 AND claim_token = $2 AND status = 'running' RETURNING id

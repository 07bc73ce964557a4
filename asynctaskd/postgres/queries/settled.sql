-- Of some claims whose finalize may or may not have been committed: the tasks that no longer run under them, for
-- which there is nothing left to write.
-- $1 ids, $2 claim tokens
SELECT asked.id FROM unnest($1::bigint[], $2::bigint[]) AS asked(id, claim_token)
WHERE (SELECT t.id FROM asynctaskd.tasks AS t
       WHERE t.id = asked.id AND t.claim_token = asked.claim_token AND t.status = 'running' LIMIT 1) IS NULL

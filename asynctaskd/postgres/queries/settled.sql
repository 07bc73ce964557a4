-- Of some claims whose finalize may or may not have been committed: the tasks for which it was.
-- $1 ids, $2 claim tokens
SELECT asked.id FROM unnest($1::bigint[], $2::bigint[]) AS asked(id, claim_token)
WHERE EXISTS (SELECT FROM asynctaskd.finished_tasks AS f
              WHERE f.id = asked.id AND f.claim_token = asked.claim_token)
   OR EXISTS (SELECT FROM asynctaskd.tasks AS t
              WHERE t.id = asked.id AND t.claim_token = asked.claim_token AND t.status <> 'running')

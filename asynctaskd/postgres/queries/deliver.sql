-- Take in what operators ask of the tasks that a worker runs; a row each, as often as asked, until it has stopped.
-- $1 worker_id
SELECT task_id, claim_token, requested, detail FROM asynctaskd.deliver($1)

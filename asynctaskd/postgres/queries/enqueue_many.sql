-- Enqueue many tasks, all or none; returns their ids in the order given.
-- $1 names, $2 payloads, $3 priorities, $4 weights, $5 labels joined by commas, $6 the other options (JSON objects)
SELECT asynctaskd.enqueue_many($1, $2::text[]::jsonb[], $3, $4, $5, $6::text[]::jsonb[])

-- The newest tasks that fit a filter, as one document (JSON); what it has when its time is over.
-- $1 filter (JSON), $2 only those before this place (NULL: the newest), $3 tasks at most, $4 its time,
-- $5 whole tasks? (else their ids)
SELECT asynctaskd.search_tasks($1::text::jsonb, $2, $3, $4, $5)::text

-- What has ended of late by group: how much, how long it had waited and run, as one document (JSON).
-- $1 how long ago it begins, $2 into how many steps it is cut, $3 the labels that have a weight
SELECT asynctaskd.pulse($1, $2, $3)::text

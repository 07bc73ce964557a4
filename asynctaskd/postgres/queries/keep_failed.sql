-- Keep records that failure tasks still need from being dropped; returns how many.
-- $1 rows at most
SELECT asynctaskd.keep_failed($1)

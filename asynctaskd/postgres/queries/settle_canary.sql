-- End a canary, for all or back to what was; returns the version that is to hold, or NULL where it has ended before.
-- $1 its identity, $2 whether it is promoted
SELECT version, identity FROM asynctaskd.settle_canary($1, $2)

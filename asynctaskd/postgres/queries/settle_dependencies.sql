-- Let go, or cancel, what waits for some tasks that have ended: a thousand of either kind, where they are many.
-- $1 their ids; those that haven't ended are passed over
-- Returns how many were seen to, and the ended tasks for which others still wait.
SELECT settled, unsettled FROM asynctaskd.settle_dependencies($1)

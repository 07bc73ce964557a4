-- Decide slots of a schedule, and move on to the next one; returns what became of each.
-- $1 schedule, $2 the revision and $3 the next_at that the caller saw, $4 the slot that follows (NULL: none ever),
-- $5 slots (JSON: an array of slot, outcome, reason, params, encoded)
SELECT slot, task_id, outcome, reason
FROM asynctaskd.decide_slots($1, $2, $3, coalesce($4, 'infinity'::timestamptz), $5::jsonb)

-- Forget what was decided long ago; returns how many slots.
-- $1 rows at most
WITH forgotten AS (
    DELETE FROM asynctaskd.schedule_slots
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM asynctaskd.schedule_slots
        WHERE slot < (SELECT asynctaskd.clock() - interval '30 days') ORDER BY slot LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM forgotten

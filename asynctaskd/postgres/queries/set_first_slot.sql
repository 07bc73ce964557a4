-- Say when a schedule is due for the first time since it was made or changed; returns whether that was written.
-- $1 schedule, $2 the revision that the caller saw, $3 the slot (NULL: none ever)
UPDATE asynctaskd.schedules SET next_at = coalesce($3, 'infinity'::timestamptz)
WHERE name = ANY (ARRAY(
    SELECT name FROM asynctaskd.schedules
    WHERE name = $1 AND revision = $2 AND next_at IS NULL AND paused_at IS NULL
    FOR UPDATE SKIP LOCKED))
RETURNING true

-- Declare workers lost whose death was seen: their claims end now, not with their lease. Returns their ids.
-- $1 their ids, $2 why
UPDATE asynctaskd.workers SET lost_at = asynctaskd.clock(), lost_because = $2, idle = false
WHERE id = ANY ($1::uuid[]) AND stopped_at IS NULL AND lost_at IS NULL
RETURNING id

-- What became of the slots of a schedule, the newest first.
-- $1 schedule, $2 rows at most
SELECT schedule, slot, task_id, outcome, reason, decided_at FROM asynctaskd.schedule_slots
WHERE schedule = $1 ORDER BY slot DESC LIMIT $2

-- The schedules by name, each with what became of its last slot, and the database's time; without params and options.
-- $1 one name, or NULL for all
SELECT s.name, s.task, s.expression, s.zone, NULL AS params, NULL AS options, s.missed, s.missed_limit, s.overlap,
       s.declared, s.tended, s.paused_at, s.paused_because, s.since, s.next_at, s.last_slot, s.last_task,
       last.outcome AS last_outcome, last.reason AS last_reason, s.created_at, s.updated_at, asynctaskd.clock() AS now
FROM asynctaskd.schedule_list AS s
     LEFT JOIN asynctaskd.schedule_slots AS last ON last.schedule = s.name AND last.slot = s.last_slot
WHERE $1::text IS NULL OR s.name = $1
ORDER BY s.name

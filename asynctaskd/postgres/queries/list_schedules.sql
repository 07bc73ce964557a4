-- The schedules by name, each with what became of its last slot, and the database's time.
-- $1 one name, or NULL for all
SELECT s.name, s.task, s.expression, s.zone, s.params::text, s.options::text, s.missed, s.missed_limit, s.overlap,
       s.declared_hash IS NOT NULL AS declared,
       s.declared_hash IS NULL OR EXISTS (
           SELECT FROM asynctaskd.workers AS w WHERE w.process = ANY (s.declared_by) AND asynctaskd.is_live(w)
       ) AS tended,
       s.paused_at, s.paused_because, s.since, nullif(s.next_at, 'infinity') AS next_at, s.last_slot, s.last_task,
       last.outcome AS last_outcome, last.reason AS last_reason, s.created_at, s.updated_at,
       asynctaskd.clock() AS now
FROM asynctaskd.schedules AS s
     LEFT JOIN asynctaskd.schedule_slots AS last ON last.schedule = s.name AND last.slot = s.last_slot
WHERE $1::text IS NULL OR s.name = $1
ORDER BY s.name

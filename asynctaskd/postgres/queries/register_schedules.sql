-- Write down the schedules a worker's App declares; who was declared in the same way before stays as it is.
-- Arrays, one element a schedule: $1 names, $2 tasks, $3 expressions, $4 zones, $5 params (JSON), $6 missed,
-- $7 missed limits, $8 overlaps, $9 hashes of all that
INSERT INTO asynctaskd.schedules AS s (
    name, task, expression, zone, params, missed, missed_limit, overlap, declared_hash)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[], $6::text[], $7::integer[],
                     $8::text[], $9::text[]) AS d(name)
ORDER BY name  -- one order of locks for all
ON CONFLICT (name) DO UPDATE SET
    task = excluded.task, expression = excluded.expression, zone = excluded.zone, params = excluded.params,
    options = '{}', missed = excluded.missed, missed_limit = excluded.missed_limit, overlap = excluded.overlap,
    declared_hash = excluded.declared_hash,
    -- Somebody's pause stays. What a worker couldn't read may be looked at again.
    paused_at = CASE WHEN s.paused_because IS NULL THEN s.paused_at END, paused_because = NULL,
    since = CASE WHEN (s.expression, s.zone) = (excluded.expression, excluded.zone) AND s.paused_because IS NULL
                 THEN s.since ELSE asynctaskd.clock() END,
    next_at = CASE WHEN (s.expression, s.zone) = (excluded.expression, excluded.zone) THEN s.next_at END,
    revision = s.revision + 1, updated_at = asynctaskd.clock()
WHERE s.declared_hash IS DISTINCT FROM excluded.declared_hash

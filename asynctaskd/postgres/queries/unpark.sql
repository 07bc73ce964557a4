-- Let tasks go back where they came from whose name isn't paused any more; returns how many.
-- $1 rows at most
--
-- Not before all have applied the newest configuration, or have had a second to: who hasn't would put them aside again.
WITH RECURSIVE names (name) AS (
    (SELECT name FROM asynctaskd.tasks WHERE status = 'paused' AND reason = 'name paused' ORDER BY name LIMIT 1)
    UNION ALL
    SELECT (SELECT t.name FROM asynctaskd.tasks AS t
            WHERE t.status = 'paused' AND t.reason = 'name paused' AND t.name > names.name ORDER BY t.name LIMIT 1)
    FROM names WHERE names.name IS NOT NULL
), back AS MATERIALIZED (
    SELECT found.id
    FROM names CROSS JOIN LATERAL (
        SELECT t.id FROM asynctaskd.tasks AS t
        WHERE t.status = 'paused' AND t.reason = 'name paused' AND t.name = names.name
          AND t.requested IS NULL  -- what an operator has asked for comes first, and `settle` sees to it
        LIMIT $1 FOR UPDATE SKIP LOCKED
    ) AS found
    WHERE names.name IS NOT NULL AND names.name <> ALL (SELECT unnest(asynctaskd.paused_names()))
      AND coalesce((SELECT c.created_at < asynctaskd.clock() - interval '1 s'
                           OR NOT EXISTS (SELECT FROM asynctaskd.workers AS w
                                          WHERE asynctaskd.is_live(w)
                                            AND asynctaskd.known_version(w.applied_config_version, w.applied_config)
                                                < c.version)
                    FROM asynctaskd.runtime_configs AS c ORDER BY c.version DESC LIMIT 1), true)
    LIMIT $1
), resumed AS (
    -- Of a serial key it goes back into the line, where the next promotion finds it.
    UPDATE asynctaskd.tasks
    SET status = CASE WHEN serial_key IS NOT NULL THEN 'waiting'
                      WHEN run_at > (SELECT asynctaskd.clock()) THEN 'scheduled' ELSE 'pending' END,
        reason = CASE WHEN losses > 0 THEN 'lease_lost' END
    WHERE id = ANY (ARRAY(SELECT id FROM back))
    RETURNING id, claim_token, claimed_at, label_set, status
), told AS (
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, claim_token, claimed_at, 'resumed', '{"reason": "name paused"}' FROM resumed
), announced AS (
    SELECT asynctaskd.announce(array_agg(DISTINCT label_set) FILTER (WHERE status = 'pending')) FROM resumed
)
SELECT count(*) FROM resumed LEFT JOIN announced ON true

-- Put back what is held by workers that aren't live; returns a row per task.
-- $1 rows at most, $2 whether to judge: to declare those lost whose lease ran out
--
-- A loss isn't a failure: it has an allowance of its own, and the third in a row marks the task as quarantined,
-- to be claimed once more for its failure hook alone.
WITH RECURSIVE holders (worker_id) AS (
    (SELECT worker_id FROM asynctaskd.tasks WHERE worker_id IS NOT NULL ORDER BY worker_id LIMIT 1)
    UNION ALL
    SELECT (SELECT t.worker_id FROM asynctaskd.tasks AS t
            WHERE t.worker_id IS NOT NULL AND t.worker_id > holders.worker_id ORDER BY t.worker_id LIMIT 1)
    FROM holders WHERE holders.worker_id IS NOT NULL
), declared AS (
    -- Lost is final: from here on the worker can neither renew nor claim.
    UPDATE asynctaskd.workers SET lost_at = asynctaskd.clock(), idle = false
    WHERE $2 AND stopped_at IS NULL AND lost_at IS NULL AND expires_at <= asynctaskd.clock()
      -- Nobody could renew before the server was there: who lives gets one lease to come back.
      AND asynctaskd.clock() > pg_postmaster_start_time() + (expires_at - renewed_at)
    RETURNING id
), abandoned AS (
    SELECT t.id, t.worker_id AS holder,
           (SELECT lost_because FROM asynctaskd.workers AS w WHERE w.id = t.worker_id) AS because
    FROM asynctaskd.tasks AS t
    WHERE t.worker_id = ANY (ARRAY(
        SELECT worker_id FROM holders LEFT JOIN asynctaskd.workers AS w ON w.id = worker_id
        -- Not whoever looked expired when this began: it may have renewed before it was declared lost.
        WHERE worker_id IS NOT NULL AND (w.id IS NULL OR w.stopped_at IS NOT NULL OR w.lost_at IS NOT NULL
              OR w.id IN (SELECT id FROM declared))))
    LIMIT $1 FOR UPDATE OF t SKIP LOCKED
), recovered AS (
    UPDATE asynctaskd.tasks AS t
    -- Where an operator has asked for it, `settle` sees to what follows.
    SET status = CASE WHEN t.requested IS NULL THEN 'pending' ELSE 'paused' END, worker_id = NULL, losses = t.losses + 1,
        reason = CASE WHEN t.losses + 1 >= 3 THEN 'quarantined' ELSE 'lease_lost' END
    FROM abandoned WHERE t.id = ANY (ARRAY(SELECT id FROM abandoned)) AND t.id = abandoned.id
    RETURNING t.id, t.name, t.claim_token, t.claimed_at, t.losses, t.label_set, abandoned.holder, abandoned.because
), told AS (
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, claim_token, claimed_at, 'lease_lost',
           jsonb_strip_nulls(jsonb_build_object('worker_id', holder, 'losses', losses, 'cause', because))
    FROM recovered
), announced AS (
    SELECT asynctaskd.announce(array_agg(DISTINCT label_set)) FROM recovered
)
SELECT id, name, holder, losses FROM recovered CROSS JOIN announced

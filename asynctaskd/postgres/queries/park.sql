-- Put tasks aside whose name is paused, of those that come first in some label sets; returns how many.
-- $1 label sets, $2 paused names, $3 how many of each set and lane are looked at
WITH first AS MATERIALIZED (
    SELECT found.id
    FROM unnest($1::text[]) AS asked(label_set) CROSS JOIN LATERAL (
        (SELECT t.id, t.name, t.requested FROM asynctaskd.tasks AS t
         WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set = asked.label_set
         ORDER BY -t.weight, t.id LIMIT $3)
        UNION ALL
        (SELECT t.id, t.name, t.requested FROM asynctaskd.tasks AS t
         WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.label_set = asked.label_set
         ORDER BY -t.priority, t.id LIMIT $3)
    ) AS found
    WHERE found.name = ANY ($2::text[]) AND found.requested IS NULL
), parked AS (
    UPDATE asynctaskd.tasks SET status = 'paused', reason = 'name paused'
    WHERE id = ANY (ARRAY(SELECT id FROM asynctaskd.tasks
                          WHERE id = ANY (ARRAY(SELECT id FROM first)) AND status = 'pending'
                          FOR UPDATE SKIP LOCKED))
    RETURNING id, claim_token, claimed_at
), told AS (
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, claim_token, claimed_at, 'paused', '{"reason": "name paused"}' FROM parked
)
SELECT count(*) FROM parked

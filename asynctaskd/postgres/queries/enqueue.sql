-- Enqueue one task; returns its id.
-- $1 name, $2 payload, $3 priority, $4 weight, $5 labels, $6 tags, $7 unique_tag, $8 unique_until, $9 on_conflict,
-- $10 serial_key, $11 serial_id, $12 parent_id, $13 delay, $14 run_at, $15 deadline, $16 deadline_after, $17 timeout,
-- $18 retry, $19 max_attempts, $20 keep, $21 metadata, $22 depends_on, $23 encoded
--
-- JSON goes in and comes out as text, whatever codec the caller's connection has for it.
SELECT asynctaskd.enqueue(
    $1, $2::text::jsonb, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
    $21::text::jsonb, $22, encoded => $23)

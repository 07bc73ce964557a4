-- Enqueue one task; returns its id.
-- $1 name, $2 payload, $3 priority, $4 weight, $5 labels, $6 tags, $7 unique_tag, $8 unique_until, $9 on_conflict,
-- $10 serial_key, $11 serial_id, $12 parent_id, $13 delay, $14 run_at, $15 deadline, $16 deadline_after, $17 timeout,
-- $18 retry, $19 max_attempts, $20 keep, $21 metadata, $22 depends_on, $23 encoded
--
-- JSON goes in and comes out as text, whatever codec the caller's connection has for it. Types are named, since not
-- every driver asks the server for them.
SELECT asynctaskd.enqueue(
    $1::text, $2::text::jsonb, $3::integer, $4::integer, $5::text[], $6::text[], $7::text, $8::text, $9::text,
    $10::text, $11::bigint, $12::bigint, $13::interval, $14::timestamptz, $15::timestamptz, $16::interval,
    $17::interval, $18::text, $19::integer, $20::interval, $21::text::jsonb, $22::bigint[], encoded => $23::boolean)

-- Enqueue many tasks, all or none; returns their ids in the order given.
-- $1 names joined by commas, $2 payloads (JSON arrays of them), $3 priorities, $4 weights, $5 labels joined by commas,
-- $6 the other options (JSON objects)
--
-- Elements of an array cost more on their way than the rows they become: hence the joined names and payloads.
SELECT asynctaskd.enqueue_written(
    string_to_array($1::text, ','),
    ARRAY(SELECT jsonb_array_elements(document::jsonb) FROM unnest($2::text[]) AS document),
    $2::text[], $3::integer[], $4::integer[], $5::text[], $6::text[]::jsonb[])

-- Write down the definitions a worker knows.
-- Arrays, one element a definition: $1 names, $2 schema hashes, $3 priorities, $4 weights, $5 label sets,
-- $6 tags (JSON arrays), $7 serial keys, $8 unique_until, $9 delays, $10 deadlines, $11 timeouts,
-- $12 retry policies, $13 max_attempts, $14 keeps, $15 has it a failure hook?, $16 codecs, $17 secrets (JSON)
WITH known AS (
    SELECT name, schema_hash, priority, weight, label_set,
           CASE WHEN tags IS NOT NULL THEN ARRAY(SELECT jsonb_array_elements_text(tags)) END AS tags,
           serial_key, unique_until, delay, deadline, timeout, retry, max_attempts, keep, has_hook, codec, secrets
    FROM unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::text[], $6::jsonb[], $7::text[],
                $8::text[], $9::interval[], $10::interval[], $11::interval[], $12::text[], $13::integer[],
                $14::interval[], $15::boolean[], $16::text[], $17::jsonb[])
        AS d(name, schema_hash, priority, weight, label_set, tags, serial_key, unique_until, delay, deadline,
             timeout, retry, max_attempts, keep, has_hook, codec, secrets)
    ORDER BY name  -- one order of locks for all
)
INSERT INTO asynctaskd.definitions AS d (
    name, schema_hash, priority, weight, label_set, tags, serial_key, unique_until, delay, deadline, timeout,
    retry, max_attempts, keep, has_hook, codec, secrets)
SELECT * FROM known
ON CONFLICT (name) DO UPDATE SET
    schema_hash = excluded.schema_hash, priority = excluded.priority, weight = excluded.weight,
    label_set = excluded.label_set, tags = excluded.tags, serial_key = excluded.serial_key,
    unique_until = excluded.unique_until, delay = excluded.delay, deadline = excluded.deadline,
    timeout = excluded.timeout, retry = excluded.retry, max_attempts = excluded.max_attempts,
    keep = excluded.keep, has_hook = excluded.has_hook,
    codec = excluded.codec, secrets = excluded.secrets, updated_at = asynctaskd.clock()
WHERE (d.schema_hash, d.priority, d.weight, d.label_set, d.tags, d.serial_key, d.unique_until, d.delay,
       d.deadline, d.timeout, d.retry, d.max_attempts, d.keep, d.has_hook, d.codec, d.secrets)
    IS DISTINCT FROM
      (excluded.schema_hash, excluded.priority, excluded.weight, excluded.label_set, excluded.tags,
       excluded.serial_key, excluded.unique_until, excluded.delay, excluded.deadline, excluded.timeout,
       excluded.retry, excluded.max_attempts, excluded.keep, excluded.has_hook, excluded.codec, excluded.secrets)

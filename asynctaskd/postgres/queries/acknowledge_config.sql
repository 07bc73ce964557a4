-- Write down which configuration a worker applies, or why it rejects one, and tell whoever waits for that.
-- $1 worker_id, $2 version, $3 its identity; NULL: the defaults, $4 why it was rejected; NULL: it was applied,
-- $5 the request behind it
WITH answered AS (
    UPDATE asynctaskd.workers
    SET applied_config_version = CASE WHEN $4::text IS NULL THEN $2 ELSE applied_config_version END,
        applied_config = CASE WHEN $4 IS NULL THEN $3 ELSE applied_config END,
        rejected_config_version = CASE WHEN $4 IS NOT NULL THEN $2 END,
        rejected_config = CASE WHEN $4 IS NOT NULL THEN $3::uuid END, rejected_because = $4
    WHERE id = $1 AND stopped_at IS NULL
    RETURNING applied_config_version, applied_config
)
SELECT pg_notify('asynctaskd_runtime_config_ack', json_build_object(
    'op', 'ack', 'params', json_build_object(
        'request_id', $5::uuid, 'worker_id', $1::uuid, 'applied_version', applied_config_version,
        'applied_config', applied_config,
        'rejected_version', CASE WHEN $4 IS NOT NULL THEN $2::bigint END, 'rejected', left($4, 1000)))::text)
FROM answered

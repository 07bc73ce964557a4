-- What benchmarks/dashboard.py fills its database with: a week of finished tasks, and a backlog of an hour.

-- section fleet
INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, running, expires_at)
SELECT md5('worker ' || n)::uuid, gen_random_uuid(), 'app-' || n, 4000 + n, '0.1.0',
       '{mail,media,reports,billing,eu}', '{*}', 20, 0, clock_timestamp() + interval '1 day'
FROM generate_series(1, 20) AS n;
INSERT INTO asynctaskd.runtime_configs (version, default_weight, weights, limits)
VALUES (1, 1, '{"mail": 5, "media": 2, "reports": 1, "billing": 3}', '{"media": 40}');
SELECT asynctaskd.ensure_finished_partition((clock_timestamp() AT TIME ZONE 'UTC')::date + day)
FROM generate_series(0, 9) AS day;
CREATE FUNCTION labels_of(n bigint) RETURNS text LANGUAGE sql IMMUTABLE RETURN CASE
    WHEN n % 9 = 0 THEN ''
    WHEN n % 3 = 0 THEN 'eu,' || ('{mail,media,reports,billing}'::text[])[1 + n % 4]
    ELSE ('{mail,media,reports,billing}'::text[])[1 + n % 4] END;
CREATE FUNCTION tags_of(n bigint) RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN CASE WHEN n % 5 = 0 THEN ARRAY['customer:' || n % 100000] ELSE '{}' END;
CREATE FUNCTION payload_of(n bigint) RETURNS jsonb LANGUAGE sql IMMUTABLE
RETURN jsonb_build_object('order', n, 'to', 'ada@example.org', 'subject', 'Your order is on its way');

-- section finished
-- $1 the first and $2 the last id, $3 of how many
INSERT INTO asynctaskd.finished_tasks
    (id, claim_token, created_at, claimed_at, finished_at, forget_on, priority, weight, attempts, failures, losses,
     worker_id, status, name, label_set, tags, depends_on, payload, result, last_error, reason, parent_id, root_id)
SELECT n, n, at - interval '2 s', at - interval '0.4 s', at, (at AT TIME ZONE 'UTC')::date + 8, 0, 1, 1, 0, 0,
       md5('worker 1')::uuid, status, 'shop.task_' || n % 60, labels_of(n), tags_of(n), '{}', payload_of(n),
       CASE status WHEN 'completed' THEN '{"sent": true}'::jsonb END,
       CASE status WHEN 'failed' THEN 'ValueError: no such mailbox' END, CASE status WHEN 'failed' THEN 'error' END,
       CASE WHEN n % 20 = 3 THEN n - 1 END, CASE WHEN n % 20 = 3 THEN n - 1 END
FROM (SELECT n, clock_timestamp() - interval '6 days 23 hours' * (1 - n / $3::float8) AS at,
             CASE WHEN n % 50 = 7 THEN 'failed' WHEN n % 400 = 11 THEN 'cancelled' WHEN n % 400 = 12 THEN 'expired'
                  ELSE 'completed' END AS status
      FROM generate_series($1::bigint, $2::bigint) AS n) AS times

-- section ends
-- $1 the first and $2 the last id
INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, at, kind, detail)
SELECT id, claim_token, claimed_at, finished_at, status, jsonb_build_object('error', last_error)
FROM asynctaskd.finished_tasks WHERE status <> 'completed' AND id BETWEEN $1 AND $2 ORDER BY id

-- section pending
-- $1 the id before the first, $2 how many
INSERT INTO asynctaskd.tasks (id, created_at, status, name, label_set, tags, payload, run_at, serial_key, worker_id,
                              claimed_at, claim_token, reason, priority)
SELECT $1::bigint + n, clock_timestamp() - interval '1 hour' * (1 - n / $2::float8), status, 'shop.task_' || n % 60,
       labels_of(n), tags_of(n), payload_of(n),
       CASE status WHEN 'scheduled' THEN clock_timestamp() + interval '1 day' END,
       CASE status WHEN 'waiting' THEN 'customer:' || n END,
       CASE status WHEN 'running' THEN md5('worker ' || (1 + n % 20))::uuid END,
       CASE status WHEN 'running' THEN clock_timestamp() END, CASE status WHEN 'running' THEN 1 ELSE 0 END,
       CASE status WHEN 'paused' THEN 'paused by operator' END, CASE WHEN n % 1000 = 5 THEN 10 ELSE 0 END
FROM (SELECT n, CASE WHEN n % 500 = 1 THEN 'scheduled' WHEN n % 2000 = 3 THEN 'waiting' WHEN n % 3000 = 9 THEN 'paused'
                     WHEN n % 4000 = 17 THEN 'running' ELSE 'pending' END AS status
      FROM generate_series(1, $2::bigint) AS n) AS statuses

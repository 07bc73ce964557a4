-- A fleet at work, for pages to show; ids in the order of time, as always: workers, groups, tasks of each status, a tree, schedules, versions.
SELECT asynctaskd.ensure_finished_partition((clock_timestamp() AT TIME ZONE 'UTC')::date + d) FROM generate_series(0, 9) AS d;

INSERT INTO asynctaskd.runtime_configs (version, created_at, identity, created_by, based_on, changes, default_weight, weights, limits,
                                        paused_labels, max_run_times, expires_at)
VALUES (1, clock_timestamp() - interval '9 days', '00000000-0000-4000-8000-000000000001', 'ops', 0,
        '{"weights": {"mail": 3, "media": 1}}', 1, '{"mail": 3, "media": 1}', '{}', '{}', '{}', NULL),
       (2, clock_timestamp() - interval '2 days', '00000000-0000-4000-8000-000000000002', 'ada', 1,
        '{"limits": {"media": 8}}', 1, '{"mail": 3, "media": 1}', '{"media": 8}', '{}', '{}', NULL),
       (3, clock_timestamp() - interval '25 minutes', '00000000-0000-4000-8000-000000000003', 'ada', 2,
        '{"weights": {"mail": 6, "media": 2, "billing": 3}, "paused_labels": ["reports"]}', 1,
        '{"mail": 6, "media": 2, "billing": 3}', '{"media": 8}', '{reports}', '{"media": "10m"}', clock_timestamp() + interval '35 minutes');

INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, running, idle, started_at, renewed_at,
                                expires_at, applied_config_version, applied_config, finished, failed, stall, process)
SELECT md5('worker ' || n)::uuid, gen_random_uuid(), 'app-' || (1 + n % 4), 4100 + 7 * n, '0.1.0',
       CASE WHEN n % 3 = 0 THEN '{billing,mail}' ELSE '{billing,mail,media,reports}' END::text[], '{*}', 16, 0, false,
       clock_timestamp() - interval '3 hours' * n, clock_timestamp() - interval '0.7 s' * n, clock_timestamp() + interval '1 day',
       CASE WHEN n = 5 THEN 2 ELSE 3 END, ('00000000-0000-4000-8000-00000000000' || CASE WHEN n = 5 THEN 2 ELSE 3 END)::uuid,
       40000 - 900 * n, 31 * n,
       CASE WHEN n = 2 THEN '{"task": "media.transcode", "task_id": 902653, "seconds": 7.4, "stack": "in transcode"}'::jsonb END,
       ('00000000-0000-4000-a000-' || lpad(n::text, 12, '0'))::uuid
FROM generate_series(1, 6) AS n;
INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, started_at, renewed_at, expires_at,
                                stopped_at, lost_at, lost_because)
VALUES (gen_random_uuid(), gen_random_uuid(), 'app-2', 3911, '0.1.0', '{mail}', '{*}', 16, clock_timestamp() - interval '2 days',
        clock_timestamp() - interval '50 minutes', clock_timestamp() - interval '49 minutes', NULL,
        clock_timestamp() - interval '49 minutes', 'killed by signal 9'),
       (gen_random_uuid(), gen_random_uuid(), 'app-1', 2204, '0.1.0', '{mail}', '{*}', 16, clock_timestamp() - interval '4 days',
        clock_timestamp() - interval '1 day', clock_timestamp() - interval '1 day', clock_timestamp() - interval '1 day', NULL, NULL);

INSERT INTO asynctaskd.finished_tasks
    (id, claim_token, created_at, claimed_at, finished_at, forget_on, priority, weight, attempts, failures, losses, max_attempts,
     worker_id, status, name, label_set, tags, depends_on, payload, result, last_error, reason)
SELECT 900000 + 2 * n, n, at - interval '0.9 s' * (1 + n % 5), at - interval '0.2 s' * (1 + n % 7), at, (at AT TIME ZONE 'UTC')::date + 8, 0, 1,
       CASE WHEN status = 'failed' THEN 3 ELSE 1 END, CASE WHEN status = 'failed' THEN 3 ELSE 0 END, 0, 3,
       md5('worker 1')::uuid, status,
       ('{mail.send,mail.digest,media.transcode,billing.charge,search.index}'::text[])[1 + n % 5],
       ('{mail,mail,media,billing,""}'::text[])[1 + n % 5], CASE WHEN n % 4 = 0 THEN ARRAY['customer:' || n % 97] ELSE '{}' END, '{}',
       jsonb_build_object('order', n, 'to', 'ada@example.org'), CASE WHEN status = 'completed' THEN '{"sent": true}'::jsonb END,
       CASE WHEN status = 'failed' THEN 'ConnectionError: mail.example.org refused the connection' END,
       CASE status WHEN 'failed' THEN 'error' WHEN 'cancelled' THEN 'cancelled by operator' WHEN 'expired' THEN 'deadline passed' END
FROM (SELECT n, clock_timestamp() - interval '5 minutes' * (1 - n / 6000.0 + 0.02 * sin(n / 300.0) + 0.006 * sin(n / 77.0)) AS at,
             CASE WHEN n % 83 = 5 THEN 'failed' WHEN n % 400 = 11 THEN 'cancelled' WHEN n % 500 = 12 THEN 'expired'
                  ELSE 'completed' END AS status
      FROM generate_series(1, 6000) AS n) AS times ORDER BY n;
INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, at, kind, detail)
SELECT id, claim_token, claimed_at - interval '40 s', finished_at - interval '39 s', 'retried',
       jsonb_build_object('error', last_error, 'reason', 'error', 'delay', '00:00:30')
FROM asynctaskd.finished_tasks WHERE status = 'failed';
INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, at, kind, detail)
SELECT id, claim_token, claimed_at, finished_at, status, jsonb_strip_nulls(jsonb_build_object('error', last_error, 'reason', reason))
FROM asynctaskd.finished_tasks WHERE status <> 'completed' ORDER BY finished_at;

INSERT INTO asynctaskd.tasks (id, created_at, status, name, label_set, tags, payload, run_at, serial_key, worker_id, claimed_at,
                              claim_token, reason, attempts, priority, failures, last_error, requested)
SELECT 902401 + 2 * (4800 * n / 1400), clock_timestamp() - interval '4 minutes' * (1 - n / 1400.0), status,
       ('{mail.send,mail.digest,media.transcode,billing.charge,reports.monthly}'::text[])[1 + n % 5],
       ('{mail,mail,media,billing,reports}'::text[])[1 + n % 5], CASE WHEN n % 4 = 0 THEN ARRAY['customer:' || n % 97] ELSE '{}' END,
       jsonb_build_object('order', n, 'to', 'ada@example.org'),
       CASE WHEN status = 'scheduled' THEN clock_timestamp() + interval '1 minute' * (n % 90) END,
       CASE WHEN status = 'waiting' THEN 'customer:7' END,
       CASE WHEN status = 'running' THEN md5('worker ' || (1 + n / 21 % 6))::uuid END,
       CASE WHEN status = 'running' THEN clock_timestamp() - interval '0.3 s' * (n % 60) END,
       CASE WHEN status = 'running' THEN 1 ELSE 0 END, CASE status WHEN 'paused' THEN 'paused by operator' WHEN 'scheduled' THEN 'error' END,
       CASE WHEN status IN ('running', 'scheduled') THEN 1 ELSE 0 END, CASE WHEN n % 140 = 8 THEN 10 ELSE 0 END,
       CASE WHEN status = 'scheduled' THEN 1 ELSE 0 END, CASE WHEN status = 'scheduled' THEN 'TimeoutError: no answer in 10 s' END, NULL
FROM (SELECT n, CASE WHEN n % 21 = 16 THEN 'running' WHEN n % 45 = 7 THEN 'scheduled' WHEN n % 90 = 11 THEN 'paused'
                     WHEN n % 400 = 3 THEN 'waiting' ELSE 'pending' END AS status
      FROM generate_series(1, 1400) AS n) AS statuses;
UPDATE asynctaskd.tasks SET progress = '{"percent": 62, "message": "third of five files"}' WHERE id = 902653;
UPDATE asynctaskd.workers AS w SET running = (SELECT count(*) FROM asynctaskd.tasks WHERE worker_id = w.id);
SELECT setval('asynctaskd.task_ids', 912010);

-- Its children, and what waits for it.
INSERT INTO asynctaskd.tasks (id, parent_id, root_id, status, name, label_set, payload)
SELECT 912010 + n, 902653, 902653, 'pending', 'media.thumbnail', 'media', '{}' FROM generate_series(1, 3) AS n;
INSERT INTO asynctaskd.tasks (id, status, name, label_set, payload, depends_on)
VALUES (912014, 'waiting', 'media.publish', 'media', '{"film": 12}', '{902653}');
INSERT INTO asynctaskd.dependencies (depends_on, task_id) VALUES (902653, 912014);
SELECT setval('asynctaskd.task_ids', 912014);

INSERT INTO asynctaskd.schedules (name, task, expression, zone, declared_hash, declared_by, next_at, last_slot, last_task, since, paused_at)
VALUES ('reports.monthly', 'reports.monthly', '0 0 4 1 * *', 'Europe/Vienna', 'x', '{00000000-0000-4000-a000-000000000001}', NULL, NULL,
        NULL, clock_timestamp(), NULL),
       ('mail.digest', 'mail.digest', '@every 10m', 'UTC', 'x', '{00000000-0000-4000-a000-000000000001}',
        clock_timestamp() + interval '4 minutes', clock_timestamp() - interval '6 minutes', 905002, clock_timestamp() - interval '9 days', NULL),
       ('search.reindex', 'search.index', '0 30 2 * * *', 'UTC', NULL, '{}', NULL, NULL, NULL, clock_timestamp(), clock_timestamp());
INSERT INTO asynctaskd.schedule_slots (schedule, slot, task_id, outcome, reason)
SELECT 'mail.digest', last_slot - interval '10 minutes' * n, CASE WHEN n % 4 <> 3 THEN 905002 - 5 * n END,
       CASE WHEN n % 4 = 3 THEN 'skipped' ELSE 'ran' END, CASE WHEN n % 4 = 3 THEN format('task %s is still running', 905002 - 5 * n) END
FROM asynctaskd.schedules, generate_series(0, 12) AS n WHERE name = 'mail.digest';

INSERT INTO asynctaskd.audit (at, actor, address, action, target, before, after, outcome)
VALUES (clock_timestamp() - interval '2 days', 'ada', '10.0.4.17', 'configure', '{"task": 4711}', '{"limits": {}}', '{"limits": {"media": 8}}',
        'asked for by task 4711'),
       (clock_timestamp() - interval '40 minutes', 'ops', '10.0.4.20', 'retry', '{"filter": {"status": "failed", "name": "mail.send"}, "tasks": 212, "more_are_left": false}',
        NULL, NULL, '212 changed'),
       (clock_timestamp() - interval '25 minutes', 'ada', '10.0.4.17', 'configure', '{"task": 5120}', '{"paused_labels": []}',
        '{"paused_labels": ["reports"], "expires": "1h"}', 'asked for by task 5120');
ANALYZE;

-- A request and its receipts, after whatever is over has been settled.
-- $1 request_id
SELECT c.action, r.task_id, r.status, r.outcome, r.reason, r.worker_id, r.requested_at, r.delivered_at, r.stopped_at
FROM asynctaskd.commands AS c LEFT JOIN asynctaskd.receipts AS r USING (request_id)
WHERE c.request_id = $1 ORDER BY r.task_id

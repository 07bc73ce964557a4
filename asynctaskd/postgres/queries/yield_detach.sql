-- Cancel a statement that detaches where somebody waits for its locks, or its time is up; returns who was in its way.
-- $1 the statement, $2 is its time up?
--
-- It is known by its text: behind a pooler nobody knows which session it has got.
SELECT pg_blocking_pids(detaching.pid), pg_cancel_backend(detaching.pid)
FROM pg_stat_activity AS detaching
WHERE detaching.state = 'active' AND detaching.query = $1
  AND detaching.datname = current_database() AND detaching.usename = session_user
  AND ($2::boolean OR EXISTS (
      SELECT FROM pg_locks AS own JOIN pg_locks AS waits USING (locktype, database, relation)
      WHERE own.pid = detaching.pid AND waits.pid <> own.pid AND NOT waits.granted AND locktype = 'relation'))

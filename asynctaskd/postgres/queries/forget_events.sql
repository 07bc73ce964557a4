-- Delete, among the next events of a pass, those of tasks that are neither live nor recorded any more.
-- $1 events at most
-- Returns how many were looked at and how many deleted; no row where somebody else is at it, or no pass is due.
--
-- An event stays for a day, whatever became of its task: a worker that lost the task may come back and ask. A pass
-- begins once a day and ends with the table, so that what was skipped or came late is found by the next one.
WITH place AS MATERIALIZED (
    SELECT last_event FROM asynctaskd.retention
    -- Where the clock went back, a pass isn't put off for ever.
    WHERE next_pass NOT BETWEEN asynctaskd.clock() AND asynctaskd.clock() + interval '1 day'
    FOR UPDATE SKIP LOCKED
), looked AS MATERIALIZED (
    SELECT id, task_id, at FROM asynctaskd.task_events
    WHERE id > (SELECT last_event FROM place) ORDER BY id LIMIT $1
), old AS MATERIALIZED (
    SELECT id, task_id FROM looked WHERE at < (SELECT asynctaskd.clock() - interval '1 day')
), unknown AS MATERIALIZED (
    -- Subqueries with a LIMIT, not EXISTS: that would become a join, which walks whole indexes.
    SELECT task_id FROM (SELECT DISTINCT task_id FROM old) AS asked
    WHERE (SELECT id FROM asynctaskd.tasks WHERE id = asked.task_id LIMIT 1) IS NULL
      AND (SELECT id FROM asynctaskd.finished_tasks WHERE id = asked.task_id LIMIT 1) IS NULL
), deleted AS (
    DELETE FROM asynctaskd.task_events
    WHERE id = ANY (ARRAY(SELECT id FROM old WHERE task_id IN (SELECT task_id FROM unknown)))
    RETURNING id
), moved AS (
    UPDATE asynctaskd.retention SET
        last_event = CASE WHEN seen.count = $1 THEN seen.last ELSE 0 END,
        next_pass = CASE WHEN seen.count = $1 THEN next_pass ELSE asynctaskd.clock() + interval '1 day' END
    FROM (SELECT count(*), max(id) AS last FROM looked) AS seen
    WHERE EXISTS (SELECT FROM place)
)
SELECT (SELECT count(*) FROM looked), (SELECT count(*) FROM deleted) FROM place

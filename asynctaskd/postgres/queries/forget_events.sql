-- Delete, among the next events of a pass, those of tasks that are neither live nor recorded any more.
-- $1 events at most
-- Returns how many were looked at and how many deleted; no row where somebody else is at it, or no pass is due.
--
-- An event stays for a day, whatever became of its task: a worker that lost the task may come back and ask. A pass
-- begins once a day and ends with the table, so that what was skipped or came late is found by the next one.
-- It goes by task, since there is one index alone in that order: by id, the planner may take the wrong one.
WITH place AS MATERIALIZED (
    SELECT last_task, last_event FROM asynctaskd.retention
    -- Where the clock went back, a pass isn't put off for ever.
    WHERE next_pass NOT BETWEEN asynctaskd.clock() AND asynctaskd.clock() + interval '1 day'
    FOR UPDATE SKIP LOCKED
), looked AS MATERIALIZED (
    SELECT task_id, id, at, ctid AS tid FROM asynctaskd.task_events
    WHERE (task_id, id) > ((SELECT last_task FROM place), (SELECT last_event FROM place))
    ORDER BY task_id, id LIMIT $1
), old AS MATERIALIZED (
    SELECT task_id, tid FROM looked WHERE at < (SELECT asynctaskd.clock() - interval '1 day')
), unknown AS MATERIALIZED (
    -- Subqueries with a LIMIT, not EXISTS: that would become a join, which walks whole indexes.
    SELECT task_id FROM (SELECT DISTINCT task_id FROM old) AS asked
    WHERE (SELECT id FROM asynctaskd.tasks WHERE id = asked.task_id LIMIT 1) IS NULL
      AND (SELECT id FROM asynctaskd.finished_tasks WHERE id = asked.task_id LIMIT 1) IS NULL
), deleted AS (
    DELETE FROM asynctaskd.task_events
    -- Where they lie, since events are never updated: for ids, the planner may walk the index of tasks.
    WHERE ctid = ANY (ARRAY(SELECT tid FROM old WHERE task_id IN (SELECT task_id FROM unknown)))
    RETURNING id
), seen AS (
    SELECT (SELECT count(*) FROM looked) AS events, last.task_id, last.id
    FROM place LEFT JOIN (SELECT task_id, id FROM looked ORDER BY task_id DESC, id DESC LIMIT 1) AS last ON true
), moved AS (
    UPDATE asynctaskd.retention
    SET last_task = CASE WHEN seen.events = $1 THEN seen.task_id ELSE 0 END,
        last_event = CASE WHEN seen.events = $1 THEN seen.id ELSE 0 END,
        next_pass = CASE WHEN seen.events = $1 THEN next_pass ELSE asynctaskd.clock() + interval '1 day' END
    FROM seen
)
SELECT events, (SELECT count(*) FROM deleted) FROM seen

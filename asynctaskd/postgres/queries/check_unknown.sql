-- The names that tasks wait under and no live worker knows, and how many wait.
SELECT name, count(*) FROM asynctaskd.task_list AS tasks
-- Finished tasks aren't looked through: by the rules of their tables none has such a status.
WHERE reason = 'unknown_name' AND status IN ('scheduled', 'waiting', 'pending', 'running', 'paused')
GROUP BY name
HAVING NOT EXISTS (
    SELECT FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w) AND asynctaskd.knows(w.names, tasks.name))
ORDER BY count(*) DESC, name

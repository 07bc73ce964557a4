-- The names that tasks wait under and no live worker knows, and how many wait.
SELECT name, count(*) FROM asynctaskd.tasks WHERE reason = 'unknown_name' GROUP BY name
HAVING NOT EXISTS (
    SELECT FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w) AND asynctaskd.knows(w.names, tasks.name))
ORDER BY count(*) DESC, name

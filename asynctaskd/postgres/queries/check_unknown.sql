-- The names that tasks wait under and no live worker knows, and how many wait.
SELECT name, count(*) FROM asynctaskd.tasks
WHERE reason = 'unknown_name' AND NOT EXISTS (
    SELECT FROM asynctaskd.workers AS w WHERE asynctaskd.is_live(w) AND asynctaskd.knows(w.names, tasks.name))
GROUP BY name ORDER BY count(*) DESC, name

-- The newest id that was given to a task, and that of the newest event.
SELECT coalesce(pg_sequence_last_value('asynctaskd.task_ids'), 0),
       coalesce((SELECT max(id) FROM asynctaskd.task_events), 0)

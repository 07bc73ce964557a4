-- Forget workers that have been gone for a day and hold nothing.
DELETE FROM asynctaskd.workers
WHERE coalesce(stopped_at, lost_at) < asynctaskd.clock() - interval '1 day'
  AND NOT EXISTS (SELECT FROM asynctaskd.tasks WHERE tasks.worker_id = workers.id)

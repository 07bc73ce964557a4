-- Workers that were lost within the last hour or still hold tasks, and live ones that are silent for half of their lease:
-- where, whether live, for how many seconds, why (where somebody said), and how many tasks they hold.
SELECT w.hostname || ':' || w.pid AS host, asynctaskd.is_live(w) AS is_live,
       extract(epoch FROM now.is - CASE WHEN asynctaskd.is_live(w) THEN w.renewed_at
                                        ELSE coalesce(w.lost_at, w.expires_at) END)::float8 AS seconds,
       w.lost_because AS because, held.tasks
FROM asynctaskd.workers AS w
     CROSS JOIN (SELECT asynctaskd.clock() AS is) AS now
     CROSS JOIN LATERAL (SELECT count(*)::integer AS tasks FROM asynctaskd.task_list
                         -- So that finished tasks aren't looked through: none of them is running.
                         WHERE worker_id = w.id AND status = 'running') AS held
WHERE w.stopped_at IS NULL
  AND CASE WHEN asynctaskd.is_live(w) THEN now.is - w.renewed_at > (w.expires_at - w.renewed_at) / 2
           ELSE coalesce(w.lost_at, w.expires_at) > now.is - interval '1 hour' OR held.tasks > 0 END
ORDER BY held.tasks DESC, seconds

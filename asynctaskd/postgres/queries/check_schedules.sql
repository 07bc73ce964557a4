-- Schedules that are to be kept: their time zones, and why a worker paused one, where one did.
SELECT name, zone, paused_because AS because FROM asynctaskd.schedule_list
WHERE paused_at IS NULL OR paused_because IS NOT NULL
ORDER BY name

-- How many live workers haven't applied the newest version that is for all.
SELECT count(*) FROM asynctaskd.workers AS w
WHERE asynctaskd.is_live(w) AND asynctaskd.known_version(applied_config_version, applied_config) < (
    SELECT c.version FROM asynctaskd.runtime_configs AS c WHERE reach = 'all' ORDER BY c.version DESC LIMIT 1)

-- How many live workers haven't applied the newest version that is for all, and which version that is; 0: there is none.
SELECT count(w) FILTER (WHERE asynctaskd.known_version(w.applied_config_version, w.applied_config) < newest.version),
       newest.version
FROM (SELECT coalesce((SELECT c.version FROM asynctaskd.runtime_configs AS c WHERE reach = 'all'
                       ORDER BY c.version DESC LIMIT 1), 0) AS version) AS newest
     LEFT JOIN asynctaskd.workers AS w ON asynctaskd.is_live(w)
GROUP BY newest.version

-- A worker says that it is there: a new identity with a lease; no row where another live process has its name.
-- $1 id, $2 name (worker.id), $3 process, $4 place, $5 hostname, $6 pid, $7 version, $8 labels, $9 task names,
-- $10 concurrency, $11 lease, $12 the identity of the configuration that it applies, $13 its own share of slots for
-- strict tasks
INSERT INTO asynctaskd.workers (id, name, process, place, hostname, pid, version, labels, names, concurrency,
                                expires_at, applied_config, applied_config_version, max_strict_percentage)
SELECT $1, $2, $3, $4, $5, $6, $7, $8::text[], $9::text[], $10, asynctaskd.clock() + $11, $12,
       coalesce((SELECT c.version FROM asynctaskd.runtime_configs AS c WHERE c.identity = $12), 0), $13
WHERE asynctaskd.is_free($2, $3)
RETURNING id

-- A worker says that it is there: a new identity with a lease.
-- $1 id, $2 name (worker.id), $3 hostname, $4 pid, $5 version, $6 labels, $7 task names, $8 concurrency, $9 lease,
-- $10 configuration version applied
INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, expires_at,
                                applied_config_version)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, asynctaskd.clock() + $9, $10)

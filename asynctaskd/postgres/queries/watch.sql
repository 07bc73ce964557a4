-- Begin or go on watching: workers tell what is wanted until the lease is over.
-- $1 the watcher's id, $2 what it wants: 'events' or 'shares', $3 lease
SELECT asynctaskd.watch($1, $2, $3)

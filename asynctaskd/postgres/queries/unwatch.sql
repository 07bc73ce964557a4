-- Watch no more: the lease is over now. By the function, so that who watches needs no right to the rows of others.
-- $1 the watcher's id
SELECT asynctaskd.watch($1, 'events', '0 s')

-- Watch no more.
-- $1 the watcher's id
DELETE FROM asynctaskd.watchers WHERE id = $1

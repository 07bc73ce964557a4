-- schema 1.2
--
-- One live worker to a name; and the failure hook of a quarantined task runs apart too.

-- Whether no live worker of another process has a name, until the end of the transaction. Starts at the same moment
-- take turns here: each has to see what the one before it has committed, so this can't be SQL alone, whose snapshot
-- would be older than the lock.
CREATE FUNCTION asynctaskd.is_free(worker_name uuid, for_process uuid) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.workers'), hashtext(worker_name::text));
    RETURN NOT EXISTS (SELECT FROM asynctaskd.workers AS w
                       WHERE name = worker_name AND process IS DISTINCT FROM for_process AND asynctaskd.is_live(w));
END $$;


-- What killed a worker three times may do so in its failure hook as well: such tasks stay suspects.
DROP INDEX asynctaskd.tasks_ready_normal;
DROP INDEX asynctaskd.tasks_ready_strict;
DROP INDEX asynctaskd.tasks_suspect;
CREATE INDEX tasks_ready_normal ON asynctaskd.tasks (label_set, (-weight), id)
    WHERE status = 'pending' AND losses < 2 AND priority = 0;
CREATE INDEX tasks_ready_strict ON asynctaskd.tasks (label_set, (-priority), id)
    WHERE status = 'pending' AND losses < 2 AND priority > 0;
CREATE INDEX tasks_suspect ON asynctaskd.tasks (id) WHERE status = 'pending' AND losses >= 2;

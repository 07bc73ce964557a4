-- schema 1.2
--
-- One live worker to a name.

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

-- schema 1.4
--
-- Retention: what has outlived its keep is dropped by the workers, and nobody waits for it.

-- How far the workers have come in looking for what is to be forgotten: one row for the whole fleet.
CREATE TABLE asynctaskd.retention (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    -- A pass through the events of tasks begins at 0, and has looked at all events up to this one of this task.
    last_task bigint NOT NULL DEFAULT 0,
    last_event bigint NOT NULL DEFAULT 0,
    next_pass timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO asynctaskd.retention DEFAULT VALUES;

-- Makes the partition for one day where it is missing. Attaching a finished table takes a lock that lets
-- readers and finalize go on; CREATE … PARTITION OF would not.
--
-- Where the clock went back, the day may have been detached already, or be on the way out: then it comes back.
CREATE OR REPLACE FUNCTION asynctaskd.ensure_finished_partition(day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'finished_tasks_' || to_char(day, 'YYYYMMDD');
    pending boolean;
BEGIN
    -- A table of that name isn't enough: it may be none of the partitions any more.
    IF EXISTS (SELECT FROM pg_inherits
               WHERE inhrelid = to_regclass('asynctaskd.' || partition) AND NOT inhdetachpending) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.finished_tasks'), 0);
    -- Asked of the catalogue: to_regclass would answer from what this session has cached before it got the lock.
    SELECT inhdetachpending INTO pending FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'asynctaskd.finished_tasks'::regclass AND relname = partition;
    IF NOT pending THEN
        RETURN;
    ELSIF pending THEN
        EXECUTE format('ALTER TABLE asynctaskd.finished_tasks DETACH PARTITION asynctaskd.%I FINALIZE', partition);
    ELSE
        -- Written once and dropped as a whole: what vacuum sees of it is frozen at once, so that no later one
        -- has to come back for that.
        EXECUTE format('CREATE TABLE IF NOT EXISTS asynctaskd.%I (LIKE asynctaskd.finished_tasks INCLUDING ALL) '
                       'WITH (autovacuum_freeze_min_age = 0, toast.autovacuum_freeze_min_age = 0)', partition);
    END IF;
    EXECUTE format('ALTER TABLE asynctaskd.finished_tasks ATTACH PARTITION asynctaskd.%I '
                   'FOR VALUES FROM (%L) TO (%L)', partition, day, day + 1);
END $$;

-- Drops a table of finished tasks that was detached; whether it did. Nobody attaches it meanwhile: the lock is that
-- of ensure_finished_partition. Who still reads it isn't waited for long.
CREATE FUNCTION asynctaskd.drop_detached(partition text) RETURNS boolean
LANGUAGE plpgsql SET lock_timeout = '500ms' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.finished_tasks'), 0);
    IF NOT EXISTS (
        SELECT FROM pg_class AS detached JOIN pg_class AS parent USING (relnamespace)
        WHERE parent.oid = 'asynctaskd.finished_tasks'::regclass AND detached.relname = partition
          AND detached.relkind = 'r' AND NOT detached.relispartition
    ) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE asynctaskd.%I', partition);
    RETURN true;
END $$;

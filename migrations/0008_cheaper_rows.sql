-- schema 1.6
--
-- What each row costs beside itself.

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

-- One label set is the rule, and asking for one takes no subquery over several.
CREATE OR REPLACE FUNCTION asynctaskd.tell(label_sets text[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    label_set text;
    counted bigint;  -- assigned to, since PERFORM would start the executor
BEGIN
    FOREACH label_set IN ARRAY label_sets LOOP
        IF EXISTS (SELECT FROM asynctaskd.workers
                   WHERE idle AND asynctaskd.is_live(workers) AND labels @> string_to_array(label_set, ',')) THEN
            PERFORM pg_notify('asynctaskd_ready', CASE WHEN cardinality(label_sets) = 1 THEN label_set ELSE '*' END);
            counted := nextval('asynctaskd.notices_sent');
            RETURN true;
        END IF;
    END LOOP;
    counted := nextval('asynctaskd.notices_saved');
    RETURN false;
END $$;

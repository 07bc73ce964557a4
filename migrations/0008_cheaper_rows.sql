-- schema 1.6
--
-- What each row costs beside itself.

-- PostgreSQL parses the CHECK constraints of a table anew for each statement that writes it: 38 µs for the sixteen of
-- live tasks, more than all else that a single INSERT costs. What they said is kept by the functions and statements
-- that write them. The tests put them back (`tests/support/invariants.sql`), so that none can break a rule unnoticed.
DO $$
DECLARE
    rule record;
BEGIN
    FOR rule IN SELECT conname FROM pg_constraint WHERE conrelid = 'asynctaskd.tasks'::regclass AND contype = 'c' LOOP
        EXECUTE format('ALTER TABLE asynctaskd.tasks DROP CONSTRAINT %I', rule.conname);
    END LOOP;
END $$;

-- Defaults go into tasks as they are. They are written when a worker starts, so here the rules cost nothing.
ALTER TABLE asynctaskd.definitions
    ADD CHECK (priority >= 0),
    ADD CHECK (weight >= 1),
    ADD CHECK (max_attempts >= -1),
    ADD CHECK (delay >= interval '0'),
    ADD CHECK (deadline > interval '0'),
    ADD CHECK (timeout > interval '0'),
    ADD CHECK (keep >= interval '0');

-- No two live tasks have the same entry in these: looking for duplicates before a page is split hardly ever finds one.
ALTER INDEX asynctaskd.tasks_ready_normal SET (deduplicate_items = off);
ALTER INDEX asynctaskd.tasks_ready_strict SET (deduplicate_items = off);

-- One label set is the rule, and asking for one takes no subquery over several.
CREATE OR REPLACE FUNCTION asynctaskd.tell(label_sets text[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    is_awaited boolean;
    notice text := '*';
    counted bigint;  -- assigned to, since PERFORM would start the executor
BEGIN
    IF cardinality(label_sets) = 1 THEN
        notice := label_sets[1];
        is_awaited := EXISTS (
            SELECT FROM asynctaskd.workers
            WHERE idle AND asynctaskd.is_live(workers) AND labels @> string_to_array(notice, ','));
    ELSE
        is_awaited := EXISTS (
            SELECT FROM asynctaskd.workers
            WHERE idle AND asynctaskd.is_live(workers)
              AND EXISTS (SELECT FROM unnest(label_sets) AS label_set WHERE string_to_array(label_set, ',') <@ labels));
    END IF;
    IF is_awaited THEN
        PERFORM pg_notify('asynctaskd_ready', notice);
        counted := nextval('asynctaskd.notices_sent');
    ELSE
        counted := nextval('asynctaskd.notices_saved');
    END IF;
    RETURN is_awaited;
END $$;

-- schema 1.10
--
-- Limits by label over the whole fleet, and tasks that are held back because their name is paused.

-- How many tasks of a limited label each worker may run. What a worker runs stays within its permits, and together
-- they stay within the limit, so a claim has nobody to ask.
CREATE TABLE asynctaskd.label_permits (
    label text COLLATE "C",
    worker_id uuid REFERENCES asynctaskd.workers ON DELETE CASCADE,
    permits integer NOT NULL CHECK (permits >= 0),
    wanted integer NOT NULL CHECK (wanted >= 0),  -- how many it would use
    request bigint NOT NULL,                      -- the worker's last one: an older one that comes late changes nothing
    PRIMARY KEY (label, worker_id)
) WITH (fillfactor = 50);  -- permits change on their page (HOT)

-- Tasks that go back where they came from once their name isn't paused any more.
CREATE INDEX tasks_name_paused ON asynctaskd.tasks (name) WHERE status = 'paused' AND reason = 'name paused';

-- The limit of a label in the newest configuration, or NULL where that has none, or none that can be read.
CREATE FUNCTION asynctaskd.newest_limit(label text) RETURNS integer
LANGUAGE sql STABLE
RETURN (SELECT CASE WHEN jsonb_typeof(limits -> label) = 'number'
                    THEN least(greatest((limits -> label)::numeric, 0), 2147483647)::integer END
        FROM asynctaskd.runtime_configs WHERE reach = 'all' ORDER BY version DESC LIMIT 1);

-- The names that the newest configuration pauses, or one that a worker tries.
CREATE FUNCTION asynctaskd.paused_names() RETURNS text[]
LANGUAGE sql STABLE
RETURN ARRAY(
    SELECT unnest(paused_names) FROM asynctaskd.runtime_configs
    WHERE reach <> 'nobody'
      AND version >= (SELECT version FROM asynctaskd.runtime_configs WHERE reach = 'all'
                      ORDER BY version DESC LIMIT 1));

-- Of some tasks, those that come first and of which no more carry each limited label than `spare` says.
CREATE FUNCTION asynctaskd.within_limits(ids bigint[], label_sets text[], limited text[], spare integer[])
RETURNS SETOF bigint
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY
    WITH chosen AS (SELECT * FROM unnest(ids, label_sets) WITH ORDINALITY AS one(id, label_set, place))
    SELECT id FROM chosen
    WHERE place NOT IN (
        SELECT counted.place
        FROM (SELECT chosen.place, had.spare,
                     row_number() OVER (PARTITION BY had.label ORDER BY chosen.place) AS nth
              FROM unnest(limited, within_limits.spare) AS had(label, spare)
                   JOIN chosen ON had.label = ANY (string_to_array(chosen.label_set, ','))) AS counted
        WHERE counted.nth > counted.spare);
END $$;

-- Says of tasks that a claim puts aside, for their names are paused, what happens to them.
CREATE FUNCTION asynctaskd.tell_put_aside(by_worker uuid, ids bigint[], paused_names text[]) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, claim_token, claimed_at, 'paused', '{"reason": "name paused"}'
    FROM asynctaskd.tasks
    WHERE id = ANY (ids) AND name = ANY (paused_names) AND requested IS NULL
      AND (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = by_worker)
$$;

-- Deletes the permits of workers that are gone and can't use them any more: those whose tasks were recovered, and of
-- which no claim is under way that a statement elsewhere doesn't see yet.
CREATE FUNCTION asynctaskd.drop_stray_permits(for_label text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    strays uuid[];
BEGIN
    SELECT array_agg(w.id) INTO strays
    FROM asynctaskd.label_permits AS p JOIN asynctaskd.workers AS w ON w.id = p.worker_id,
         least(w.stopped_at, w.lost_at, w.expires_at) AS gone_at
    WHERE p.label = for_label AND NOT asynctaskd.is_live(w)
      AND (gone_at < asynctaskd.clock() - interval '10 s'  -- longer than any statement of a worker may take
           OR NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND xact_start <= gone_at));
    IF strays IS NOT NULL THEN
        -- A statement of its own: what was under way until then is visible to it.
        DELETE FROM asynctaskd.label_permits AS p
        WHERE p.label = for_label AND p.worker_id = ANY (strays)
          AND NOT EXISTS (SELECT FROM asynctaskd.tasks AS t
                          WHERE t.worker_id = p.worker_id AND for_label = ANY (string_to_array(t.label_set, ',')));
    END IF;
END $$;

-- What a worker may run of a limited label from now on: at least what it holds, at most what it wants, and within
-- the limit what others leave to it. Returns its permits, and how many of them it may fill up again.
CREATE FUNCTION asynctaskd.exchange_permits(
    for_worker uuid, nth bigint, for_label text, own_limit integer, held integer, wants integer,
    OUT granted integer, OUT target integer
)
LANGUAGE plpgsql AS $$
DECLARE
    most integer := coalesce(asynctaskd.newest_limit(for_label), own_limit);
    fair integer;     -- of the limit, for each that wants some
    taken bigint;     -- by others
    claimed bigint;   -- by others, or theirs by right
    unknown bigint;   -- running on workers that don't know of the limit yet
    strangers bigint; -- these workers
BEGIN
    -- Each statement from here on sees what committed before this was locked.
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.label_permits'), hashtext(for_label));
    SELECT permits INTO granted FROM asynctaskd.label_permits
    WHERE label = for_label AND worker_id = for_worker AND request >= nth;
    IF FOUND THEN
        target := granted;
        RETURN;
    END IF;
    FOR attempt IN 1..2 LOOP
        SELECT most / greatest((count(*) FILTER (WHERE p.wanted > 0 AND asynctaskd.is_live(w)) + (wants > 0)::integer), 1)
        INTO fair
        FROM asynctaskd.label_permits AS p JOIN asynctaskd.workers AS w ON w.id = p.worker_id
        WHERE p.label = for_label AND p.worker_id <> for_worker;
        SELECT coalesce(sum(p.permits), 0),
               coalesce(sum(CASE WHEN asynctaskd.is_live(w) THEN greatest(p.permits, least(p.wanted, fair))
                                 ELSE p.permits END), 0)
        INTO taken, claimed
        FROM asynctaskd.label_permits AS p JOIN asynctaskd.workers AS w ON w.id = p.worker_id
        WHERE p.label = for_label AND p.worker_id <> for_worker;
        EXIT WHEN claimed + wants <= most OR attempt = 2;
        PERFORM asynctaskd.drop_stray_permits(for_label);
    END LOOP;
    SELECT count(DISTINCT w.id), count(t.id) INTO strangers, unknown
    FROM asynctaskd.workers AS w
         LEFT JOIN asynctaskd.tasks AS t ON t.worker_id = w.id AND for_label = ANY (string_to_array(t.label_set, ','))
    WHERE w.stopped_at IS NULL AND w.lost_at IS NULL AND w.id <> for_worker AND for_label = ANY (w.labels)
      AND NOT EXISTS (SELECT FROM asynctaskd.label_permits AS p WHERE p.label = for_label AND p.worker_id = w.id);
    IF strangers > 0 AND (SELECT created_at > asynctaskd.clock() - interval '1 s'
                          FROM asynctaskd.runtime_configs ORDER BY version DESC LIMIT 1) THEN
        unknown := most;  -- they still claim as they like: nobody begins before they know
    END IF;
    target := greatest(least(wants, most - claimed - unknown), 0);
    granted := greatest(least(target, most - taken - unknown), held);
    INSERT INTO asynctaskd.label_permits (label, worker_id, permits, wanted, request)
    VALUES (for_label, for_worker, granted, wants, nth)
    ON CONFLICT (label, worker_id) DO UPDATE
    SET permits = excluded.permits, wanted = excluded.wanted, request = excluded.request;
END $$;

-- schema 1.15
--
-- What definitions say beside their options: codecs, secrets and failure tasks.

ALTER TABLE asynctaskd.definitions
    -- What payloads are encoded by: without it they can't be enqueued.
    ADD COLUMN codec text,
    -- Which of their values nobody is to read: paths of names, as arrays; `*` stands for all of a list or mapping.
    ADD COLUMN secrets jsonb;

-- Whether a worker that knows these names can write down the payload of a task: it needs the App with the codec.
CREATE FUNCTION asynctaskd.can_write(task_name text, names text[]) RETURNS boolean
LANGUAGE sql STABLE
RETURN asynctaskd.knows(names, task_name) OR (
    SELECT CASE WHEN d.name IS NULL THEN (asynctaskd.route_of(task_name)).codec ELSE d.codec END
    FROM (SELECT) AS one LEFT JOIN asynctaskd.definitions AS d ON d.name = task_name) IS NULL;


-- Failure tasks are enqueued in the transaction of a failure.

-- Which task each was enqueued for. Its record is kept while the failure task lives, and the failure task's own failure
-- starts no other.
CREATE TABLE asynctaskd.failure_tasks (
    id bigint PRIMARY KEY,
    failed_id bigint NOT NULL
);

-- Enqueues a failure task; returns its id, or NULL where the task that failed is one itself.
CREATE FUNCTION asynctaskd.enqueue_failure_task(failed bigint, name text, payload jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    new_id bigint;
BEGIN
    IF EXISTS (SELECT FROM asynctaskd.failure_tasks WHERE id = failed) THEN
        RETURN NULL;
    END IF;
    new_id := asynctaskd.enqueue(name, payload, encoded => true);
    INSERT INTO asynctaskd.failure_tasks (id, failed_id) VALUES (new_id, failed);
    RETURN new_id;
END $$;

-- Moves records that failure tasks still need out of the partitions that are due, to a later day's, and forgets failure
-- tasks that have ended; at most so many of each. Returns how many records were moved.
CREATE FUNCTION asynctaskd.keep_failed(most bigint) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    today date := (asynctaskd.clock() AT TIME ZONE 'UTC')::date;
    moved bigint;
BEGIN
    DELETE FROM asynctaskd.failure_tasks WHERE id = ANY (ARRAY(
        SELECT f.id FROM asynctaskd.failure_tasks AS f
        WHERE NOT EXISTS (SELECT FROM asynctaskd.tasks AS t WHERE t.id = f.id)
        LIMIT most FOR UPDATE SKIP LOCKED));
    PERFORM asynctaskd.ensure_finished_partition(today + 2);
    UPDATE asynctaskd.finished_tasks SET forget_on = today + 2
    WHERE forget_on <= today AND id = ANY (ARRAY(
        SELECT r.id FROM asynctaskd.finished_tasks AS r JOIN asynctaskd.failure_tasks AS f ON f.failed_id = r.id
        WHERE r.forget_on <= today LIMIT most FOR UPDATE OF r SKIP LOCKED));
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END $$;


-- What a task is stays what it was enqueued as: whoever waits for it by its id or tag waits for that. An operator may
-- correct a payload. The trigger costs statements that don't name these columns nothing.
CREATE FUNCTION asynctaskd.refuse_another_identity() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'task % stays what it is: its name and its unique tag don''t change', OLD.id
        USING ERRCODE = 'ATD04', HINT = 'enqueue another task, and cancel this one';
END $$;
CREATE TRIGGER tasks_identity BEFORE UPDATE OF name, unique_tag ON asynctaskd.tasks
    FOR EACH ROW
    WHEN ((OLD.name, OLD.unique_tag) IS DISTINCT FROM (NEW.name, NEW.unique_tag))
    EXECUTE FUNCTION asynctaskd.refuse_another_identity();

-- schema 1.1
--
-- What it takes to see a worker die, to see one hang, and to keep tasks that may kill workers apart.

ALTER TABLE asynctaskd.workers
    -- The process behind the identity, and where it runs: only there can a death be proven.
    ADD COLUMN process uuid,
    ADD COLUMN place text,
    -- What blocks its event loop, while something does: task_id, task, seconds, stack.
    ADD COLUMN stall jsonb,
    -- Why it was declared lost, where that isn't simply that its lease ran out.
    ADD COLUMN lost_because text;

CREATE INDEX workers_name ON asynctaskd.workers (name);

-- A task that has lost its worker twice in a row is a suspect: the next execution runs in a process of its own,
-- one suspect at a time. So it isn't in the ready indexes, and claims ask for suspects apart.
DROP INDEX asynctaskd.tasks_ready_normal;
DROP INDEX asynctaskd.tasks_ready_strict;
CREATE INDEX tasks_ready_normal ON asynctaskd.tasks (label_set, (-weight), id)
    WHERE status = 'pending' AND losses <> 2 AND priority = 0;
CREATE INDEX tasks_ready_strict ON asynctaskd.tasks (label_set, (-priority), id)
    WHERE status = 'pending' AND losses <> 2 AND priority > 0;
CREATE INDEX tasks_suspect ON asynctaskd.tasks (id) WHERE status = 'pending' AND losses = 2;

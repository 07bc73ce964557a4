-- schema 1.7
--
-- What is new in the strict lane, whatever its label set and priority.

-- While an old snapshot is held, nothing that was claimed leaves `tasks_ready_strict`, and whoever asks it whether a
-- strict task waits walks through all of that. Ids only grow, so here a claim can begin where the last look stood.
CREATE INDEX tasks_strict ON asynctaskd.tasks (id)
    WHERE status = 'pending' AND losses < 2 AND priority > 0;

-- What holds for every live task, whoever wrote it. The table has gone without since migration 0008, for the price.
ALTER TABLE asynctaskd.tasks
    ADD CHECK (priority >= 0),
    ADD CHECK (weight >= 1),
    ADD CHECK (attempts >= 0),
    ADD CHECK (failures >= 0),
    ADD CHECK (losses >= 0),
    ADD CHECK (max_attempts >= -1),
    ADD CHECK (timeout > interval '0'),
    ADD CHECK (keep >= interval '0'),
    ADD CONSTRAINT live_status CHECK (status IN ('scheduled', 'waiting', 'pending', 'running', 'paused')),
    ADD CONSTRAINT running_has_a_claim CHECK ((status = 'running') = (worker_id IS NOT NULL)),
    ADD CONSTRAINT claim_has_a_time CHECK (worker_id IS NULL OR (claimed_at IS NOT NULL AND claim_token > 0)),
    ADD CONSTRAINT scheduled_has_a_time CHECK (status <> 'scheduled' OR run_at IS NOT NULL),
    ADD CONSTRAINT waiting_has_a_reason CHECK (status <> 'waiting' OR serial_key IS NOT NULL OR depends_on <> '{}'),
    ADD CONSTRAINT serial_id_needs_a_key CHECK (serial_id IS NULL OR serial_key IS NOT NULL),
    ADD CONSTRAINT parent_is_older CHECK (parent_id < id AND root_id <= parent_id),
    ADD CONSTRAINT child_has_a_root CHECK ((parent_id IS NULL) = (root_id IS NULL));

-- What really happened, written by the database itself in the transactions in which it happened.
--
-- Triggers copy every change of tasks, workers and events into `chaos`, with a sequence number, the time, the
-- transaction and the process that wrote. No code of the product takes part, so a bug there can't hide here.

CREATE SCHEMA chaos;
CREATE SEQUENCE chaos.seq;

-- Which worker process this session belongs to: tests/chaos/worker.py says so when it connects.
CREATE FUNCTION chaos.process() RETURNS integer
LANGUAGE sql STABLE
RETURN nullif(current_setting('chaos.process', true), '')::integer;

-- Every task as it was born. One that an operator retries isn't born again: that is a change.
CREATE TABLE chaos.births (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    txid bigint NOT NULL,
    task_id bigint NOT NULL,
    name text NOT NULL,
    status text NOT NULL,
    priority integer NOT NULL,
    weight integer NOT NULL,
    max_attempts integer,
    parent_id bigint,
    deadline timestamptz,
    label_set text NOT NULL,
    serial_key text,
    unique_tag text,
    slot timestamptz  -- of the schedule that enqueued it, as its payload says
);
CREATE UNIQUE INDEX births_task ON chaos.births (task_id);

-- Every change of a task's standing. `op` is update, delete, finish (its arrival among the finished ones), forget
-- (it is deleted there), or revive (it is back among the live ones).
CREATE TABLE chaos.changes (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    asked_at timestamptz NOT NULL,  -- when the server got the statement
    txid bigint NOT NULL,
    process integer,
    op text NOT NULL,
    task_id bigint NOT NULL,
    old_status text,
    status text,
    old_token bigint,
    token bigint,
    old_worker uuid,
    worker uuid,
    old_attempts integer,
    attempts integer,
    old_failures integer,
    failures integer,
    old_losses integer,
    losses integer,
    reason text,
    old_requested text,  -- what operators want it to become, before and after
    requested text
);

CREATE TABLE chaos.events (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    txid bigint NOT NULL,
    task_id bigint NOT NULL,
    token bigint NOT NULL,
    kind text NOT NULL
);

CREATE TABLE chaos.leases (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    process integer,
    worker uuid NOT NULL,
    pid integer NOT NULL,
    concurrency integer NOT NULL,
    labels text[] NOT NULL,
    expires_at timestamptz NOT NULL,
    lost_at timestamptz,
    stopped_at timestamptz
);

-- Every version of the runtime configuration, and what became of it.
CREATE TABLE chaos.configs (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    version bigint NOT NULL,
    request_id uuid,
    content jsonb NOT NULL
);

-- What each worker says that it applies.
CREATE TABLE chaos.acks (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    worker uuid NOT NULL,
    version bigint NOT NULL
);

-- Every receipt as it was issued, and every change of it.
CREATE TABLE chaos.receipts (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    txid bigint NOT NULL,
    request_id uuid NOT NULL,
    task_id bigint NOT NULL,
    action text NOT NULL,
    status text,
    outcome text,
    reason text,
    worker uuid,
    token bigint,
    delivered_at timestamptz,
    stopped_at timestamptz
);

-- What is decided of each slot of a schedule.
CREATE TABLE chaos.slots (
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    txid bigint NOT NULL,
    schedule text NOT NULL,
    slot timestamptz NOT NULL,
    task_id bigint,
    outcome text NOT NULL
);

-- What handlers and hooks write in the transactions that they are given.
CREATE TABLE chaos.hooks (
    task_id bigint NOT NULL,
    txid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint
);
CREATE TABLE chaos.effects (
    task_id bigint NOT NULL,
    token bigint NOT NULL,
    txid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint
);

CREATE FUNCTION chaos.note_birth() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.births VALUES (
        nextval('chaos.seq'), clock_timestamp(), pg_current_xact_id()::text::bigint, new.id, new.name, new.status,
        new.priority, new.weight, new.max_attempts, new.parent_id, new.deadline, new.label_set, new.serial_key,
        new.unique_tag, CASE WHEN new.name IN ('ticking', 'tocking') THEN (new.payload ->> 'slot')::timestamptz END)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        INSERT INTO chaos.changes VALUES (
            nextval('chaos.seq'), clock_timestamp(), statement_timestamp(), pg_current_xact_id()::text::bigint,
            chaos.process(), 'revive', new.id, NULL, new.status, NULL, new.claim_token, NULL, new.worker_id, NULL,
            new.attempts, NULL, new.failures, NULL, new.losses, new.reason, NULL, new.requested);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.changes VALUES (
        nextval('chaos.seq'), clock_timestamp(), statement_timestamp(), pg_current_xact_id()::text::bigint,
        chaos.process(), lower(tg_op), old.id, old.status, new.status, old.claim_token, new.claim_token,
        old.worker_id, new.worker_id, old.attempts, new.attempts, old.failures, new.failures, old.losses,
        new.losses, new.reason, old.requested, new.requested);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_finish() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- What is carried out where it is asked for, since no worker is there, never was among the live ones.
    INSERT INTO chaos.births VALUES (
        nextval('chaos.seq'), clock_timestamp(), pg_current_xact_id()::text::bigint, new.id, new.name, new.status,
        new.priority, new.weight, new.max_attempts, new.parent_id, new.deadline, new.label_set, new.serial_key,
        new.unique_tag, CASE WHEN new.name IN ('ticking', 'tocking') THEN (new.payload ->> 'slot')::timestamptz END)
    ON CONFLICT DO NOTHING;
    INSERT INTO chaos.changes VALUES (
        nextval('chaos.seq'), clock_timestamp(), statement_timestamp(), pg_current_xact_id()::text::bigint,
        chaos.process(), CASE tg_op WHEN 'INSERT' THEN 'finish' ELSE 'rewrite' END, new.id, NULL, new.status, NULL,
        new.claim_token, NULL, new.worker_id, NULL, new.attempts, NULL, new.failures, NULL, new.losses, new.reason);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_forgotten() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.changes (seq, at, asked_at, txid, process, op, task_id, status, token)
    VALUES (nextval('chaos.seq'), clock_timestamp(), statement_timestamp(), pg_current_xact_id()::text::bigint,
            chaos.process(), 'forget', old.id, old.status, old.claim_token);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.events VALUES (
        nextval('chaos.seq'), clock_timestamp(), pg_current_xact_id()::text::bigint, new.task_id, new.claim_token,
        new.kind);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.leases VALUES (
        nextval('chaos.seq'), clock_timestamp(), chaos.process(), new.id, new.pid, new.concurrency, new.labels,
        new.expires_at, new.lost_at, new.stopped_at);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_config() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.configs VALUES (
        nextval('chaos.seq'), clock_timestamp(), new.version, new.request_id, to_jsonb(new));
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_ack() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.acks VALUES (
        nextval('chaos.seq'), clock_timestamp(), new.id, new.applied_config_version);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.receipts VALUES (
        nextval('chaos.seq'), clock_timestamp(), pg_current_xact_id()::text::bigint, new.request_id, new.task_id,
        new.action, new.status, new.outcome, new.reason, new.worker_id, new.claim_token, new.delivered_at,
        new.stopped_at);
    RETURN NULL;
END $$;

CREATE FUNCTION chaos.note_slot() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.slots VALUES (
        nextval('chaos.seq'), clock_timestamp(), pg_current_xact_id()::text::bigint, new.schedule, new.slot,
        new.task_id, new.outcome);
    RETURN NULL;
END $$;

CREATE TRIGGER chaos_birth AFTER INSERT ON asynctaskd.tasks FOR EACH ROW EXECUTE FUNCTION chaos.note_birth();
CREATE TRIGGER chaos_change AFTER UPDATE ON asynctaskd.tasks FOR EACH ROW
    WHEN ((old.status, old.claim_token, old.worker_id, old.attempts, old.failures, old.losses, old.requested)
          IS DISTINCT FROM
          (new.status, new.claim_token, new.worker_id, new.attempts, new.failures, new.losses, new.requested))
    EXECUTE FUNCTION chaos.note_change();
CREATE TRIGGER chaos_removal AFTER DELETE ON asynctaskd.tasks FOR EACH ROW EXECUTE FUNCTION chaos.note_change();
CREATE TRIGGER chaos_finish AFTER INSERT OR UPDATE ON asynctaskd.finished_tasks FOR EACH ROW
    EXECUTE FUNCTION chaos.note_finish();
CREATE TRIGGER chaos_forgotten AFTER DELETE ON asynctaskd.finished_tasks FOR EACH ROW
    EXECUTE FUNCTION chaos.note_forgotten();
CREATE TRIGGER chaos_event AFTER INSERT ON asynctaskd.task_events FOR EACH ROW EXECUTE FUNCTION chaos.note_event();
CREATE TRIGGER chaos_registration AFTER INSERT ON asynctaskd.workers FOR EACH ROW
    EXECUTE FUNCTION chaos.note_lease();
CREATE TRIGGER chaos_lease AFTER UPDATE ON asynctaskd.workers FOR EACH ROW
    WHEN ((old.expires_at, old.lost_at, old.stopped_at) IS DISTINCT FROM
          (new.expires_at, new.lost_at, new.stopped_at))
    EXECUTE FUNCTION chaos.note_lease();
CREATE TRIGGER chaos_config AFTER INSERT OR UPDATE ON asynctaskd.runtime_configs FOR EACH ROW
    EXECUTE FUNCTION chaos.note_config();
CREATE TRIGGER chaos_first_ack AFTER INSERT ON asynctaskd.workers FOR EACH ROW EXECUTE FUNCTION chaos.note_ack();
CREATE TRIGGER chaos_ack AFTER UPDATE ON asynctaskd.workers FOR EACH ROW
    WHEN (old.applied_config_version IS DISTINCT FROM new.applied_config_version)
    EXECUTE FUNCTION chaos.note_ack();
CREATE TRIGGER chaos_receipt AFTER INSERT OR UPDATE ON asynctaskd.receipts FOR EACH ROW
    EXECUTE FUNCTION chaos.note_receipt();
CREATE TRIGGER chaos_slot AFTER INSERT ON asynctaskd.schedule_slots FOR EACH ROW EXECUTE FUNCTION chaos.note_slot();

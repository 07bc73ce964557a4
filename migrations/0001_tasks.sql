-- schema 1.0
--
-- Plain SQL, written for the schema `asynctaskd`. Where another name is configured, `asynctaskd migrate`
-- puts that name in the place of `asynctaskd` before a dot (identifiers) or an underscore (channels).

CREATE SCHEMA IF NOT EXISTS asynctaskd;

-- Everything below reads the time here, so that a test can move it.
CREATE FUNCTION asynctaskd.clock() RETURNS timestamptz
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN clock_timestamp();


-- Definitions: what workers know. NULL means that the definition says nothing.

CREATE TABLE asynctaskd.definitions (
    name text PRIMARY KEY,
    schema_hash text NOT NULL,
    priority integer,
    weight integer,
    label_set text COLLATE "C",
    tags text[],
    serial_key text,
    unique_until text,
    delay interval,
    deadline interval,
    timeout interval,
    retry text,
    max_attempts integer,
    keep interval,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp()
);


-- Workers: an identity, a lease and what it is able to run.

CREATE TABLE asynctaskd.workers (
    id uuid PRIMARY KEY,
    name uuid NOT NULL,
    hostname text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    labels text[] NOT NULL,
    names text[] NOT NULL,
    concurrency integer NOT NULL CHECK (concurrency >= 1),
    running integer NOT NULL DEFAULT 0,
    idle boolean NOT NULL DEFAULT false,
    applied_config_version bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    renewed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    stopped_at timestamptz,
    lost_at timestamptz
) WITH (fillfactor = 50);  -- renewals and idle flags stay on their page (HOT)

-- Whether a worker's claims still stand.
CREATE FUNCTION asynctaskd.is_live(worker asynctaskd.workers) RETURNS boolean
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN worker.stopped_at IS NULL AND worker.lost_at IS NULL AND worker.expires_at > asynctaskd.clock();

CREATE TABLE asynctaskd.runtime_configs (
    version bigint PRIMARY KEY,
    max_strict_percentage integer CHECK (max_strict_percentage BETWEEN 0 AND 100),
    default_weight integer NOT NULL DEFAULT 1 CHECK (default_weight >= 1),
    weights jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(weights) = 'object'),
    limits jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object'),
    paused_labels text[] NOT NULL DEFAULT '{}',
    paused_names text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);


-- Live tasks. Small by design: a finished task leaves in the statement that finalizes it.

CREATE SEQUENCE asynctaskd.task_ids AS bigint;

CREATE TABLE asynctaskd.tasks (
    id bigint PRIMARY KEY DEFAULT nextval('asynctaskd.task_ids'),
    claim_token bigint NOT NULL DEFAULT 0,
    parent_id bigint,
    root_id bigint,
    serial_id bigint,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_at timestamptz,
    deadline timestamptz,
    claimed_at timestamptz,
    priority integer NOT NULL DEFAULT 0 CHECK (priority >= 0),
    weight integer NOT NULL DEFAULT 1 CHECK (weight >= 1),
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    losses integer NOT NULL DEFAULT 0 CHECK (losses >= 0),
    max_attempts integer CHECK (max_attempts >= -1),
    worker_id uuid,
    timeout interval CHECK (timeout > interval '0'),
    keep interval CHECK (keep >= interval '0'),
    status text NOT NULL,
    name text NOT NULL,
    label_set text COLLATE "C" NOT NULL DEFAULT '',
    tags text[] NOT NULL DEFAULT '{}',
    depends_on bigint[] NOT NULL DEFAULT '{}',
    unique_tag text,
    serial_key text,
    retry text,
    reason text,
    last_error text,
    payload jsonb NOT NULL,
    progress jsonb,
    metadata jsonb,
    CONSTRAINT live_status CHECK (status IN ('scheduled', 'waiting', 'pending', 'running', 'paused')),
    CONSTRAINT running_has_a_claim CHECK ((status = 'running') = (worker_id IS NOT NULL)),
    CONSTRAINT claim_has_a_time CHECK (worker_id IS NULL OR (claimed_at IS NOT NULL AND claim_token > 0)),
    CONSTRAINT scheduled_has_a_time CHECK (status <> 'scheduled' OR run_at IS NOT NULL),
    CONSTRAINT waiting_has_a_reason CHECK (status <> 'waiting' OR serial_key IS NOT NULL OR depends_on <> '{}'),
    CONSTRAINT serial_id_needs_a_key CHECK (serial_id IS NULL OR serial_key IS NOT NULL),
    CONSTRAINT parent_is_older CHECK (parent_id < id AND root_id <= parent_id),
    CONSTRAINT child_has_a_root CHECK ((parent_id IS NULL) = (root_id IS NULL))
) WITH (
    -- Every claim and every finalize leaves a dead entry behind: vacuum by count, not by share.
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000
);
ALTER SEQUENCE asynctaskd.task_ids OWNED BY asynctaskd.tasks.id;

-- The ready indexes hold only what can run now, one range per label set. Ascending throughout
-- (minus weight, minus priority), so that "after this one" is a range too.
CREATE INDEX tasks_ready_normal ON asynctaskd.tasks (label_set, (-weight), id)
    WHERE status = 'pending' AND priority = 0;
CREATE INDEX tasks_ready_strict ON asynctaskd.tasks (label_set, (-priority), id)
    WHERE status = 'pending' AND priority > 0;
CREATE INDEX tasks_due ON asynctaskd.tasks (run_at) WHERE status = 'scheduled';
CREATE INDEX tasks_deadline ON asynctaskd.tasks (deadline) WHERE deadline IS NOT NULL;
-- Its condition is not one that finalize mentions, so the planner can't be tempted to finalize through it.
CREATE INDEX tasks_held ON asynctaskd.tasks (worker_id) WHERE worker_id IS NOT NULL;
CREATE INDEX tasks_children ON asynctaskd.tasks (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX tasks_unknown_name ON asynctaskd.tasks (name) WHERE reason = 'unknown_name';
-- One task of a serial key at most has left the line; the others wait in it, in this order.
CREATE UNIQUE INDEX tasks_serial_head ON asynctaskd.tasks (serial_key)
    WHERE serial_key IS NOT NULL AND status IN ('pending', 'scheduled', 'running');
CREATE INDEX tasks_serial_line ON asynctaskd.tasks (serial_key, serial_id, id)
    WHERE serial_key IS NOT NULL AND status = 'waiting';


-- Finished tasks, partitioned by the day on which a record is forgotten.

CREATE TABLE asynctaskd.finished_tasks (
    id bigint NOT NULL,
    claim_token bigint NOT NULL,
    parent_id bigint,
    root_id bigint,
    serial_id bigint,
    created_at timestamptz NOT NULL,
    run_at timestamptz,
    deadline timestamptz,
    claimed_at timestamptz,
    finished_at timestamptz NOT NULL,
    forget_on date NOT NULL,
    priority integer NOT NULL,
    weight integer NOT NULL,
    attempts integer NOT NULL,
    failures integer NOT NULL,
    losses integer NOT NULL,
    max_attempts integer,
    worker_id uuid,
    timeout interval,
    keep interval,
    status text NOT NULL CHECK (status IN ('completed', 'failed', 'cancelled', 'expired')),
    name text NOT NULL,
    label_set text COLLATE "C" NOT NULL,
    tags text[] NOT NULL,
    depends_on bigint[] NOT NULL,
    unique_tag text,
    serial_key text,
    retry text,
    reason text,
    last_error text,
    payload jsonb NOT NULL,
    result jsonb,
    progress jsonb,
    metadata jsonb,
    PRIMARY KEY (id, forget_on)
) PARTITION BY RANGE (forget_on);

-- Makes the partition for one day where it is missing. Attaching a finished table takes a lock that lets
-- readers and finalize go on; CREATE … PARTITION OF would not.
CREATE FUNCTION asynctaskd.ensure_finished_partition(day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'finished_tasks_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass('asynctaskd.' || partition) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.finished_tasks'), 0);
    -- Asked of the catalogue: to_regclass would answer from what this session has cached before it got the lock.
    IF EXISTS (SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE inhparent = 'asynctaskd.finished_tasks'::regclass AND relname = partition) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE asynctaskd.%I (LIKE asynctaskd.finished_tasks INCLUDING ALL)', partition);
    EXECUTE format('ALTER TABLE asynctaskd.finished_tasks ATTACH PARTITION asynctaskd.%I '
                   'FOR VALUES FROM (%L) TO (%L)', partition, day, day + 1);
END $$;

-- A moment that much later; a day is 24 hours, whatever zone the session is in.
CREATE FUNCTION asynctaskd.later(moment timestamptz, duration interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN moment + make_interval(secs => extract(epoch FROM duration)::float8);

-- The day after which nothing of a task that finished now has to be known.
CREATE FUNCTION asynctaskd.forget_day(finished timestamptz, keep interval) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (asynctaskd.later(finished, keep) AT TIME ZONE 'UTC')::date + 1;

CREATE TABLE asynctaskd.unique_tags (
    tag text PRIMARY KEY,
    task_id bigint NOT NULL,
    until text NOT NULL CHECK (until IN ('finished', 'forgotten')),
    forget_on date
);
CREATE INDEX unique_tags_forget ON asynctaskd.unique_tags (forget_on) WHERE forget_on IS NOT NULL;

-- Everything but the ordinary claim and completion, which are columns of the row.
CREATE TABLE asynctaskd.task_events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id bigint NOT NULL,
    claim_token bigint NOT NULL,
    claimed_at timestamptz,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL CHECK (kind IN (
        'retried', 'snoozed', 'failed', 'hook_failed', 'lease_lost', 'released', 'quarantined', 'stale_result',
        'cancelled', 'paused', 'resumed', 'expired', 'reprioritized', 'retried_by_operator')),
    detail jsonb
);
CREATE INDEX task_events_task ON asynctaskd.task_events (task_id, id);

CREATE VIEW asynctaskd.all_tasks AS
SELECT id, name, payload, status, priority, weight, string_to_array(label_set, ',') AS labels, tags, unique_tag,
       serial_key, serial_id, parent_id, depends_on, run_at, deadline, timeout, attempts, losses, max_attempts,
       worker_id, claim_token, claimed_at, NULL::timestamptz AS finished_at, created_at, NULL::jsonb AS result,
       last_error, reason, progress, metadata
FROM asynctaskd.tasks
UNION ALL
SELECT id, name, payload, status, priority, weight, string_to_array(label_set, ','), tags, unique_tag,
       serial_key, serial_id, parent_id, depends_on, run_at, deadline, timeout, attempts, losses, max_attempts,
       worker_id, claim_token, claimed_at, finished_at, created_at, result,
       last_error, reason, progress, metadata
FROM asynctaskd.finished_tasks;


-- Notices: a hint that says "look now", and only where a live worker that could run it is idle. The payload is
-- the label set to look at, or nothing where it is more than one.

CREATE FUNCTION asynctaskd.announce(label_sets text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM asynctaskd.workers, unnest(label_sets) AS label_set
        WHERE idle AND asynctaskd.is_live(workers) AND string_to_array(label_set, ',') <@ labels
    ) THEN
        PERFORM pg_notify('asynctaskd_ready', CASE WHEN cardinality(label_sets) = 1 THEN label_sets[1] ELSE '*' END);
    END IF;
END $$;

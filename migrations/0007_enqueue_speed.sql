-- schema 1.5
--
-- Enqueue at the price of the rows. What requests have in common is looked at once, and what a cheap look clears
-- isn't looked at closely: rules, their order and their messages stay those of `request_problem`.

-- Notices are counted, those that were sent and those that nobody waited for. Sequences, because all enqueuers
-- count: nothing is locked until commit, and what rolled back counts too. Whoever may enqueue may count.
CREATE SEQUENCE asynctaskd.notices_sent;
CREATE SEQUENCE asynctaskd.notices_saved;
GRANT USAGE ON SEQUENCE asynctaskd.notices_sent, asynctaskd.notices_saved TO PUBLIC;

CREATE VIEW asynctaskd.notices AS
SELECT CASE WHEN sent.is_called THEN sent.last_value ELSE 0 END AS sent,
       CASE WHEN saved.is_called THEN saved.last_value ELSE 0 END AS saved
FROM asynctaskd.notices_sent AS sent, asynctaskd.notices_saved AS saved;

-- Sends a notice about these label sets where an idle, live worker could run one; returns whether it did.
CREATE FUNCTION asynctaskd.tell(label_sets text[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    is_awaited boolean;
    counted bigint;
BEGIN
    is_awaited := EXISTS (
        SELECT FROM asynctaskd.workers
        WHERE idle AND asynctaskd.is_live(workers)
          AND EXISTS (SELECT FROM unnest(label_sets) AS label_set WHERE string_to_array(label_set, ',') <@ labels));
    IF is_awaited THEN
        PERFORM pg_notify('asynctaskd_ready', CASE WHEN cardinality(label_sets) = 1 THEN label_sets[1] ELSE '*' END);
        counted := nextval('asynctaskd.notices_sent');
    ELSE
        counted := nextval('asynctaskd.notices_saved');
    END IF;
    RETURN is_awaited;
END $$;

-- The same for what calls it from a query: nothing became ready where there is no label set.
CREATE OR REPLACE FUNCTION asynctaskd.announce(label_sets text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    is_told boolean;
BEGIN
    IF label_sets <> '{}' THEN
        is_told := asynctaskd.tell(label_sets);
    END IF;
END $$;


-- Strict: an option that was left out costs no call.

CREATE OR REPLACE FUNCTION asynctaskd.label_set(labels text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF cardinality(labels) <= 1 THEN
        RETURN array_to_string(labels, ',');
    END IF;
    RETURN (SELECT string_agg(DISTINCT label, ',' ORDER BY label) FROM unnest(labels COLLATE "C") AS label);
END $$;

CREATE OR REPLACE FUNCTION asynctaskd.tags_of(option jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(option -> 'tags') <> 'null'
       THEN ARRAY(SELECT jsonb_array_elements_text(option -> 'tags')) END;


-- The rules. No expression that an ordinary request comes by holds a subquery, so that plpgsql evaluates it without
-- starting the executor; and a rare option's rules are a statement of their own, which isn't even prepared for others.

CREATE FUNCTION asynctaskd.is_name(name text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
-- Not {1,128}, for which the matcher would keep 128 states.
RETURN name ~ '^[A-Za-z0-9_.:/-]+$' AND octet_length(name) <= 128;

CREATE FUNCTION asynctaskd.labels_problem(labels text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    label text;
    different bigint;
BEGIN
    IF cardinality(labels) > 16 THEN
        different := (SELECT count(DISTINCT each) FROM unnest(labels) AS each);
        IF different > 16 THEN
            RETURN format('at most 16 labels are allowed, got %s', different);
        END IF;
    END IF;
    IF array_position(labels, NULL) IS NOT NULL THEN
        RETURN 'a label must not be NULL';
    END IF;
    FOREACH label IN ARRAY labels LOOP
        IF NOT asynctaskd.is_name(label) THEN
            RETURN format('a label must match [A-Za-z0-9_.:/-]{1,128}, got %L', labels);
        END IF;
    END LOOP;
    RETURN NULL;
END $$;

CREATE FUNCTION asynctaskd.tags_problem(tags text[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF array_position(tags, NULL) IS NOT NULL THEN
        RETURN 'a tag must not be NULL';
    ELSIF EXISTS (SELECT FROM unnest(tags) AS tag WHERE char_length(tag) NOT BETWEEN 1 AND 512) THEN
        RETURN 'a tag must have 1 to 512 characters';
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION asynctaskd.metadata_problem(metadata jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF jsonb_typeof(metadata) <> 'object' THEN
        RETURN 'metadata must be an object';
    END IF;
    RETURN regexp_replace(asynctaskd.payload_problem(metadata), '^payload', 'metadata');
END $$;

-- The first rule that a request breaks, in words, or NULL. NULL options were left out.
CREATE OR REPLACE FUNCTION asynctaskd.request_problem(
    name text, payload jsonb, priority integer, weight integer, labels text[], tags text[], unique_tag text,
    unique_until text, serial_key text, serial_id bigint, delay interval, run_at timestamptz,
    deadline timestamptz, deadline_after interval, timeout interval, retry text, max_attempts integer, keep interval,
    metadata jsonb
) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    -- What every language's calendar can hold: a worker that can't read a row can't even fail it.
    earliest constant timestamptz := '0001-01-01 00:00:00+00';
    latest constant timestamptz := '9999-12-31 23:59:59.999999+00';
    problem text;
BEGIN
    problem := coalesce(
        CASE
            WHEN asynctaskd.is_name(name) IS NOT TRUE
                THEN format('task name must match [A-Za-z0-9_.:/-]{1,128}, got %L', left(name, 150))
            WHEN priority < 0 THEN format('priority must be at least 0, got %s', priority)
            WHEN weight < 1 THEN format('weight must be at least 1, got %s', weight)
        END,
        asynctaskd.labels_problem(labels),
        asynctaskd.tags_problem(tags));
    IF problem IS NULL AND num_nonnulls(unique_tag, unique_until, serial_key, serial_id, delay, run_at, deadline,
                                        deadline_after, timeout, max_attempts, keep) > 0 THEN
        problem := CASE
            WHEN char_length(unique_tag) NOT BETWEEN 1 AND 512
                THEN format('unique_tag must have 1 to 512 characters, got %s', char_length(unique_tag))
            WHEN unique_until NOT IN ('finished', 'forgotten')
                THEN format('unique_until must be finished or forgotten, got %L', unique_until)
            WHEN char_length(serial_key) NOT BETWEEN 1 AND 512
                THEN format('serial_key must have 1 to 512 characters, got %s', char_length(serial_key))
            WHEN serial_id IS NOT NULL AND serial_key IS NULL THEN 'serial_id needs a serial_key'
            WHEN delay IS NOT NULL AND run_at IS NOT NULL THEN 'delay and run_at exclude each other'
            WHEN NOT isfinite(run_at) OR NOT isfinite(deadline) THEN 'run_at and deadline must be finite'
            WHEN run_at NOT BETWEEN earliest AND latest OR deadline NOT BETWEEN earliest AND latest
                THEN 'run_at and deadline must lie between the years 1 and 9999'
            WHEN delay < interval '0' THEN format('delay must not be negative, got %s', delay)
            WHEN deadline_after <= interval '0'
                THEN format('deadline_after must be more than 0, got %s', deadline_after)
            WHEN timeout <= interval '0' THEN format('timeout must be more than 0, got %s', timeout)
            WHEN max_attempts < -1 THEN format('max_attempts must be at least -1, got %s', max_attempts)
            WHEN keep < interval '0' THEN format('keep must not be negative, got %s', keep)
            WHEN greatest(delay, deadline_after, timeout, keep) > interval '36525 days'
                THEN 'a duration must be at most 36525d'
        END;
    END IF;
    RETURN coalesce(
        problem,
        CASE WHEN retry IS NOT NULL THEN asynctaskd.retry_problem(retry) END,
        asynctaskd.metadata_problem(metadata),
        asynctaskd.payload_problem(payload));
END $$;

-- Whether a payload has to be looked at closely, `body` being its text. Where no number has 19 digits, a text is at
-- most six times as long as its jsonb; and there 65 levels take 520 bytes.
CREATE FUNCTION asynctaskd.may_break_a_rule(payload jsonb, body text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN payload IS NULL OR pg_column_size(payload) > 500 OR body ~ '[0-9]{19}';


-- One task.

CREATE OR REPLACE FUNCTION asynctaskd.enqueue(
    name text,
    payload jsonb DEFAULT '{}',
    priority integer DEFAULT NULL,
    weight integer DEFAULT NULL,
    labels text[] DEFAULT NULL,
    tags text[] DEFAULT NULL,
    unique_tag text DEFAULT NULL,
    unique_until text DEFAULT NULL,
    on_conflict text DEFAULT 'return',
    serial_key text DEFAULT NULL,
    serial_id bigint DEFAULT NULL,
    parent_id bigint DEFAULT NULL,
    delay interval DEFAULT NULL,
    run_at timestamptz DEFAULT NULL,
    deadline timestamptz DEFAULT NULL,
    deadline_after interval DEFAULT NULL,
    timeout interval DEFAULT NULL,
    retry text DEFAULT NULL,
    max_attempts integer DEFAULT NULL,
    keep interval DEFAULT NULL,
    metadata jsonb DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
-- By index, also where the plan was made while a table was empty; before PostgreSQL 18 a scan that is off and
-- unavoidable seems to cost so much that it would be compiled.
SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    now_is timestamptz := asynctaskd.clock();
    declared asynctaskd.definitions;
    problem text;
    new_id bigint;
    first_id bigint;
    root bigint;
    new_status text := 'pending';
    starts_at timestamptz;
    label_key text;
    key text;
    is_told boolean;
BEGIN
    SELECT * INTO declared FROM asynctaskd.definitions WHERE definitions.name = enqueue.name;
    key := coalesce(enqueue.serial_key, declared.serial_key);
    IF asynctaskd.is_name(enqueue.name) IS NOT TRUE
       OR asynctaskd.may_break_a_rule(enqueue.payload, enqueue.payload::text)
       OR num_nonnulls(enqueue.priority, enqueue.weight, enqueue.labels, enqueue.tags, enqueue.unique_tag,
                       enqueue.unique_until, key, enqueue.serial_id, enqueue.delay, enqueue.run_at,
                       enqueue.deadline, enqueue.deadline_after, enqueue.timeout, enqueue.retry,
                       enqueue.max_attempts, enqueue.keep, enqueue.metadata) > 0 THEN
        problem := asynctaskd.request_problem(
            enqueue.name, enqueue.payload, enqueue.priority, enqueue.weight, enqueue.labels, enqueue.tags,
            enqueue.unique_tag, enqueue.unique_until, key, enqueue.serial_id, enqueue.delay, enqueue.run_at,
            enqueue.deadline, enqueue.deadline_after, enqueue.timeout, enqueue.retry, enqueue.max_attempts,
            enqueue.keep, enqueue.metadata);
    END IF;
    IF enqueue.on_conflict NOT IN ('return', 'raise') THEN
        problem := format('on_conflict must be return or raise, got %L', enqueue.on_conflict);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;

    new_id := nextval('asynctaskd.task_ids');
    IF enqueue.unique_tag IS NOT NULL THEN
        first_id := asynctaskd.take_unique_tag(
            enqueue.unique_tag, new_id, coalesce(enqueue.unique_until, declared.unique_until, 'forgotten'));
        IF first_id IS NOT NULL AND enqueue.on_conflict = 'raise' THEN
            RAISE EXCEPTION 'unique_tag % is taken by task %', quote_literal(enqueue.unique_tag), first_id
                USING ERRCODE = 'ATD03', DETAIL = first_id::text;
        ELSIF first_id IS NOT NULL THEN
            RETURN first_id;
        END IF;
    END IF;

    starts_at := coalesce(enqueue.run_at, asynctaskd.later(now_is, coalesce(enqueue.delay, declared.delay)));
    IF starts_at > now_is THEN
        new_status := 'scheduled';
    END IF;
    IF enqueue.parent_id IS NOT NULL THEN
        root := asynctaskd.lock_root(enqueue.parent_id);
    END IF;
    IF key IS NOT NULL AND NOT asynctaskd.goes_first(key, enqueue.serial_id) THEN
        new_status := 'waiting';
    END IF;
    label_key := coalesce(asynctaskd.label_set(enqueue.labels), declared.label_set, '');

    INSERT INTO asynctaskd.tasks (
        id, parent_id, root_id, serial_id, created_at, run_at, deadline, priority, weight, max_attempts, timeout,
        keep, status, name, label_set, tags, unique_tag, serial_key, retry, payload, metadata)
    VALUES (
        new_id, enqueue.parent_id, root, enqueue.serial_id, now_is, starts_at,
        coalesce(enqueue.deadline, asynctaskd.later(now_is, coalesce(enqueue.deadline_after, declared.deadline))),
        coalesce(enqueue.priority, declared.priority, 0), coalesce(enqueue.weight, declared.weight, 1),
        coalesce(enqueue.max_attempts, CASE WHEN enqueue.retry IS NULL THEN declared.max_attempts ELSE 10 END),
        coalesce(enqueue.timeout, declared.timeout),
        coalesce(enqueue.keep, declared.keep), new_status, enqueue.name, label_key,
        coalesce(enqueue.tags, declared.tags, '{}'), enqueue.unique_tag, key, enqueue.retry,
        enqueue.payload, enqueue.metadata);

    IF root IS NOT NULL AND asynctaskd.is_cancelled(enqueue.parent_id) THEN
        PERFORM asynctaskd.finish(ARRAY[new_id], 'cancelled', 'parent cancelled');
    ELSIF new_status = 'pending' THEN
        is_told := asynctaskd.tell(ARRAY[label_key]);
    END IF;
    RETURN new_id;
END $$;


-- Many tasks.

-- What is wrong with the options of some requests, in words, or NULL.
CREATE FUNCTION asynctaskd.options_problem(options jsonb[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    known constant text[] := '{tags,unique_tag,unique_until,on_conflict,serial_key,serial_id,parent_id,delay,run_at,'
                             'deadline,deadline_after,timeout,retry,max_attempts,keep,metadata}';
BEGIN
    RETURN (
        SELECT format('request %s: %s', place, flaw)
        FROM unnest(options) WITH ORDINALITY AS o(option, place) CROSS JOIN LATERAL (
            SELECT 'its options must be an object' AS flaw WHERE jsonb_typeof(option) <> 'object'
            UNION ALL
            SELECT format('unknown option %L', key)
            FROM jsonb_object_keys(CASE WHEN jsonb_typeof(option) = 'object' THEN option END) AS key
            WHERE key <> ALL (known)
        ) AS wrong
        ORDER BY place LIMIT 1);
END $$;

-- What is wrong with one of many requests beside the name of an option, in words, or NULL.
CREATE FUNCTION asynctaskd.problem_of_one(
    name text, payload jsonb, priority integer, weight integer, label_list text, option jsonb
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN asynctaskd.request_problem(
    name, payload, priority, weight, string_to_array(label_list, ','), asynctaskd.tags_of(option), NULL, NULL, NULL,
    NULL, (option ->> 'delay')::interval, (option ->> 'run_at')::timestamptz, (option ->> 'deadline')::timestamptz,
    (option ->> 'deadline_after')::interval, (option ->> 'timeout')::interval, option ->> 'retry',
    (option ->> 'max_attempts')::integer, (option ->> 'keep')::interval, nullif(option -> 'metadata', 'null'));

-- Whether one of many payloads breaks a rule. `written` are texts that hold all of them, as they came: a number
-- with an exponent may be longer than it looks.
CREATE FUNCTION asynctaskd.is_one_bad(payloads jsonb[], written text[]) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    has_long_numbers boolean := EXISTS (
        SELECT FROM unnest(written) AS body WHERE body ~ '[0-9]{19}|(?:\[|:|,|\s)-?[0-9.]+[eE]');
BEGIN
    IF NOT has_long_numbers AND (SELECT count(payload) = count(*) AND max(pg_column_size(payload)) <= 500
                                 FROM unnest(payloads) AS payload) THEN
        RETURN false;
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(payloads) AS payload
        WHERE (has_long_numbers OR asynctaskd.may_break_a_rule(payload, NULL))
          AND asynctaskd.payload_problem(payload) IS NOT NULL);
END $$;

-- Tags, keys and parents have to be looked at one after the other.
CREATE FUNCTION asynctaskd.enqueue_in_turn(
    names text[], payloads jsonb[], priorities integer[], weights integer[], labels text[], options jsonb[]
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    problem text;
    detail text;
    advice text;
    code text;
    asked record;
    ids bigint[] := '{}';
BEGIN
    -- Tags are taken in the order given; whoever brings the same ones in another order waits here, not crosswise.
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.unique_tag'), tag)
    FROM (SELECT DISTINCT hashtext(option ->> 'unique_tag') AS tag FROM unnest(options) AS option
          WHERE option ->> 'unique_tag' IS NOT NULL ORDER BY tag) AS tags;
    FOR asked IN
        SELECT * FROM unnest(names, payloads, priorities, weights, labels, options) WITH ORDINALITY
            AS r(name, payload, priority, weight, label_list, option, place)
    LOOP
        ids := ids || asynctaskd.enqueue(
            asked.name, asked.payload, asked.priority, asked.weight,
            string_to_array(asked.label_list, ','), asynctaskd.tags_of(asked.option),
            asked.option ->> 'unique_tag', asked.option ->> 'unique_until',
            coalesce(asked.option ->> 'on_conflict', 'return'), asked.option ->> 'serial_key',
            (asked.option ->> 'serial_id')::bigint, (asked.option ->> 'parent_id')::bigint,
            (asked.option ->> 'delay')::interval, (asked.option ->> 'run_at')::timestamptz,
            (asked.option ->> 'deadline')::timestamptz, (asked.option ->> 'deadline_after')::interval,
            (asked.option ->> 'timeout')::interval, asked.option ->> 'retry',
            (asked.option ->> 'max_attempts')::integer, (asked.option ->> 'keep')::interval,
            nullif(asked.option -> 'metadata', 'null'));
    END LOOP;
    RETURN ids;
EXCEPTION WHEN SQLSTATE 'ATD01' OR SQLSTATE 'ATD02' OR SQLSTATE 'ATD03' THEN
    GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT,
                            code = RETURNED_SQLSTATE;
    RAISE EXCEPTION 'request %: %', asked.place, problem USING ERRCODE = code, DETAIL = detail, HINT = advice;
END $$;

-- All at once. What follows from name, labels and options alone is worked out once for each combination of them
-- that there is (the arrays `kind_…`). The ids are drawn beforehand: whichever way the join goes, they are in the
-- order given.
CREATE FUNCTION asynctaskd.enqueue_together(
    names text[], payloads jsonb[], priorities integer[], weights integer[], labels text[], options jsonb[],
    kind_names text[], kind_labels text[], kind_options jsonb[]
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    ids bigint[] := ARRAY(SELECT nextval('asynctaskd.task_ids') FROM generate_series(1, cardinality(names)));
    label_sets text[];
BEGIN
    WITH kind AS MATERIALIZED (
        SELECT asked.name, asked.label_list, asked.option, start.at AS run_at,
               CASE WHEN start.at > now_is THEN 'scheduled' ELSE 'pending' END AS status,
               coalesce((option ->> 'deadline')::timestamptz, asynctaskd.later(
                   now_is, coalesce((option ->> 'deadline_after')::interval, declared.deadline))) AS deadline,
               declared.priority, declared.weight,
               coalesce((option ->> 'max_attempts')::integer,
                        CASE WHEN option ->> 'retry' IS NULL THEN declared.max_attempts ELSE 10 END) AS max_attempts,
               coalesce((option ->> 'timeout')::interval, declared.timeout) AS timeout,
               coalesce((option ->> 'keep')::interval, declared.keep) AS keep,
               coalesce(asynctaskd.label_set(string_to_array(label_list, ',')), declared.label_set, '') AS label_set,
               coalesce(asynctaskd.tags_of(option), declared.tags, '{}') AS tags,
               option ->> 'retry' AS retry, nullif(option -> 'metadata', 'null') AS metadata
        FROM unnest(kind_names, kind_labels, kind_options) AS asked(name, label_list, option)
             LEFT JOIN (SELECT * FROM asynctaskd.definitions WHERE name = ANY (kind_names)) AS declared
                    ON declared.name = asked.name
             CROSS JOIN LATERAL (
                 SELECT coalesce((option ->> 'run_at')::timestamptz, asynctaskd.later(
                            now_is, coalesce((option ->> 'delay')::interval, declared.delay))) AS at
             ) AS start
    ), inserted AS (
        INSERT INTO asynctaskd.tasks (
            id, created_at, run_at, deadline, priority, weight, max_attempts, timeout, keep, status, name, label_set,
            tags, retry, payload, metadata)
        SELECT request.id, now_is, kind.run_at, kind.deadline, coalesce(request.priority, kind.priority, 0),
               coalesce(request.weight, kind.weight, 1), kind.max_attempts, kind.timeout, kind.keep, kind.status,
               kind.name, kind.label_set, kind.tags, kind.retry, request.payload, kind.metadata
        FROM (SELECT unnest(ids) AS id, unnest(names) AS name, unnest(payloads) AS payload,
                     unnest(priorities) AS priority, unnest(weights) AS weight,
                     unnest(labels) AS label_list, unnest(options) AS option) AS request
             -- No label is "!", and no options are an array: where they were left out, they hash too.
             JOIN kind ON kind.name = request.name
                      AND coalesce(kind.label_list, '!') = coalesce(request.label_list, '!')
                      AND coalesce(kind.option, '[]') = coalesce(request.option, '[]')
    )
    SELECT array_agg(DISTINCT label_set) INTO label_sets FROM kind WHERE status = 'pending';
    PERFORM asynctaskd.announce(label_sets);
    RETURN ids;
END $$;

-- `enqueue_many` for payloads that came as texts: `written` holds all of them.
CREATE FUNCTION asynctaskd.enqueue_written(
    names text[], payloads jsonb[], written text[], priorities integer[], weights integer[], labels text[],
    options jsonb[]
) RETURNS bigint[]
LANGUAGE plpgsql
-- Plans are made for as few rows as a function's arguments are taken for, and used for ten thousand.
SET enable_seqscan = off SET enable_nestloop = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
    problem text;
    kinds record;
BEGIN
    IF (SELECT count(DISTINCT n) FROM unnest(ARRAY[
            coalesce(cardinality(names), -1), coalesce(cardinality(payloads), -1),
            cardinality(priorities), cardinality(weights), cardinality(labels), cardinality(options)]) AS n) > 1 THEN
        problem := format('the arrays must have one element a task: names has %s, payloads has %s',
                          coalesce(cardinality(names)::text, '<NULL>'),
                          coalesce(cardinality(payloads)::text, '<NULL>'));
    ELSE
        problem := asynctaskd.options_problem(options);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;

    SELECT array_agg(name) AS names, array_agg(label_list) AS labels, array_agg(option) AS options INTO kinds
    FROM (SELECT DISTINCT unnest(names) AS name, unnest(labels) AS label_list, unnest(options) AS option) AS kind;
    IF EXISTS (SELECT FROM unnest(kinds.options) AS option
               WHERE option ?| '{unique_tag,unique_until,on_conflict,serial_key,serial_id,parent_id}')
       OR EXISTS (SELECT FROM asynctaskd.definitions WHERE name = ANY (kinds.names) AND serial_key IS NOT NULL) THEN
        RETURN asynctaskd.enqueue_in_turn(names, payloads, priorities, weights, labels, options);
    END IF;

    IF 0 > ANY (priorities) OR 1 > ANY (weights) OR asynctaskd.is_one_bad(payloads, written)
       OR EXISTS (SELECT FROM unnest(kinds.names, kinds.labels, kinds.options) AS kind(name, label_list, option)
                  WHERE asynctaskd.problem_of_one(name, '{}', NULL, NULL, label_list, option) IS NOT NULL) THEN
        SELECT format('request %s: %s', place, flaw) INTO STRICT problem
        FROM unnest(names, payloads, priorities, weights, labels, options) WITH ORDINALITY
             AS request(name, payload, priority, weight, label_list, option, place),
             asynctaskd.problem_of_one(name, payload, priority, weight, label_list, option) AS flaw
        WHERE flaw IS NOT NULL ORDER BY place LIMIT 1;
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    RETURN asynctaskd.enqueue_together(
        names, payloads, priorities, weights, labels, options, kinds.names, kinds.labels, kinds.options);
END $$;

-- Many tasks in one statement; returns their ids in the order given. Each array has one element a task, or is
-- NULL. An element of `labels` is its labels joined by commas; one of `options` is an object of the remaining
-- arguments of `enqueue`, by name; null leaves one out. All are enqueued, or none.
CREATE OR REPLACE FUNCTION asynctaskd.enqueue_many(
    names text[],
    payloads jsonb[],
    priorities integer[] DEFAULT NULL,
    weights integer[] DEFAULT NULL,
    labels text[] DEFAULT NULL,
    options jsonb[] DEFAULT NULL
) RETURNS bigint[]
LANGUAGE sql
RETURN asynctaskd.enqueue_written(
    names, payloads, ARRAY[array_to_string(payloads, ' ')], priorities, weights, labels, options);

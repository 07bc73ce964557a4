-- schema 1.0
--
-- The one way in. `enqueue` and `enqueue_many` are what the Python client, psql, triggers and other
-- languages call, so that defaults, rules, uniqueness and notices are the same for all.
--
-- Errors carry SQLSTATEs of their own: ATD01 a value breaks a rule, ATD02 the parent doesn't exist,
-- ATD03 the unique tag is taken (DETAIL holds the id of the task that has it).

-- Labels as the ready index keys them: sorted by bytes, each once, joined by commas.
CREATE FUNCTION asynctaskd.label_set(labels text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN labels = '{}' THEN ''
       ELSE (SELECT string_agg(DISTINCT label, ',' ORDER BY label) FROM unnest(labels COLLATE "C") AS label) END;

-- What is wrong with a payload, in words, or NULL. Short texts can't be too deep and hold no long numbers,
-- so that an ordinary payload never pays for the walk through it.
CREATE FUNCTION asynctaskd.payload_problem(payload jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    body text := payload::text;
BEGIN
    IF body IS NULL THEN
        RETURN 'payload must not be NULL; a task without parameters has the payload {}';
    ELSIF octet_length(body) > 1048576 THEN
        RETURN format('payload is %s bytes; at most 1048576 are allowed', octet_length(body));
    ELSIF octet_length(body) >= 130 AND payload @?
            'strict $.**{64 to last} ? (@.type() == "object" || @.type() == "array")' THEN
        RETURN 'payload is nested more than 64 levels deep';
    ELSIF body ~ '[0-9]{19}' AND payload @?
            'strict $.** ? (@.type() == "number") ? ((@ > 9223372036854775807 || @ < -9223372036854775808)
             && @.floor() == @)' THEN
        RETURN 'payload holds an integer beyond 64 bits';
    END IF;
    RETURN NULL;
END $$;

-- The milliseconds of a written duration such as 1h30m.
CREATE FUNCTION asynctaskd.milliseconds(duration text) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT sum(part[1]::numeric * CASE part[2] WHEN 'd' THEN 86400000 WHEN 'h' THEN 3600000
                                                   WHEN 'm' THEN 60000 WHEN 's' THEN 1000 ELSE 1 END)
        FROM regexp_matches(duration, '([0-9]+)(ms|[dhms])', 'g') AS part);

-- What is wrong with a retry policy's text, in words, or NULL.
CREATE FUNCTION asynctaskd.retry_problem(retry text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    duration constant text :=
        '(?=[0-9])(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+s)?(?:[0-9]+ms)?';
    grammar constant text := replace(
        '\A(?:DURATION(?:, *DURATION)*'
        '|exponential\(DURATION, *[1-9][0-9]{0,3}(?:\.[0-9]{1,6})?, *DURATION\)'
        '|linear\(DURATION, *DURATION, *(?:[2-9]|[1-9][0-9]{1,3})\)'
        '|linear_(?:1m|10m|1h))'
        '(?: jitter (?:0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?))?\Z', 'DURATION', duration);
    delays numeric[];
BEGIN
    IF retry !~ grammar THEN
        RETURN format('malformed retry policy %L: write it as 1m or 1m,2m,4m or exponential(1s, 2, 1h)'
                      ' or linear(1s, 1m, 50) or linear_1m, linear_10m, linear_1h', retry);
    END IF;
    delays := ARRAY(SELECT asynctaskd.milliseconds(part[1])
                    FROM regexp_matches(retry, '(?:[0-9]+(?:ms|[dhms]))+', 'g') WITH ORDINALITY AS parts(part, place)
                    ORDER BY place);
    IF 36525 * 86400000::numeric < ANY (delays) THEN
        RETURN format('a duration of a retry policy must be at most 36525d, got %L', retry);
    ELSIF retry LIKE 'exponential%' AND (delays[1] = 0 OR delays[1] > delays[2]) THEN
        RETURN format('base of a retry policy must be longer than 0s and at most its longest delay, got %L', retry);
    END IF;
    RETURN NULL;
END $$;

-- The first rule that a request breaks, in words, or NULL. NULL options were left out.
CREATE FUNCTION asynctaskd.request_problem(
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
BEGIN
    RETURN CASE
        WHEN name IS NULL OR name !~ '^[A-Za-z0-9_.:/-]{1,128}$'
            THEN format('task name must match [A-Za-z0-9_.:/-]{1,128}, got %L', left(name, 150))
        WHEN priority < 0 THEN format('priority must be at least 0, got %s', priority)
        WHEN weight < 1 THEN format('weight must be at least 1, got %s', weight)
        WHEN cardinality(labels) > 16 AND (SELECT count(DISTINCT label) FROM unnest(labels) AS label) > 16
            THEN format('at most 16 labels are allowed, got %s',
                        (SELECT count(DISTINCT label) FROM unnest(labels) AS label))
        WHEN array_position(labels, NULL) IS NOT NULL THEN 'a label must not be NULL'
        WHEN cardinality(labels) > 0 AND (
             array_to_string(labels, ',') !~ '^[A-Za-z0-9_.:/-]{1,128}(,[A-Za-z0-9_.:/-]{1,128})*$'
             OR cardinality(string_to_array(array_to_string(labels, ','), ',')) <> cardinality(labels))
            THEN format('a label must match [A-Za-z0-9_.:/-]{1,128}, got %L', labels)
        WHEN array_position(tags, NULL) IS NOT NULL THEN 'a tag must not be NULL'
        WHEN cardinality(tags) > 0 AND EXISTS (
             SELECT FROM unnest(tags) AS tag WHERE char_length(tag) NOT BETWEEN 1 AND 512)
            THEN 'a tag must have 1 to 512 characters'
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
        WHEN greatest(delay, deadline_after, timeout, keep) > interval '36525 days' THEN 'a duration must be at most 36525d'
        WHEN retry IS NOT NULL AND asynctaskd.retry_problem(retry) IS NOT NULL THEN asynctaskd.retry_problem(retry)
        WHEN jsonb_typeof(metadata) <> 'object' THEN 'metadata must be an object'
        WHEN metadata IS NOT NULL AND asynctaskd.payload_problem(metadata) IS NOT NULL
            THEN regexp_replace(asynctaskd.payload_problem(metadata), '^payload', 'metadata')
        ELSE asynctaskd.payload_problem(payload)
    END;
END $$;

-- Takes a unique tag for a task about to be inserted. Returns the id of the task that has it already, or NULL.
-- A tag whose record is due to be forgotten counts as free. A tag that stays with its task isn't locked: that
-- task's finalize must not wait for this transaction.
CREATE FUNCTION asynctaskd.take_unique_tag(wanted text, holder bigint, until text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    today date := (asynctaskd.clock() AT TIME ZONE 'UTC')::date;
    first_id bigint;
BEGIN
    LOOP
        INSERT INTO asynctaskd.unique_tags (tag, task_id, until) VALUES (wanted, holder, until)
        ON CONFLICT (tag) DO NOTHING;
        IF FOUND THEN
            RETURN NULL;
        END IF;
        SELECT task_id INTO first_id FROM asynctaskd.unique_tags
        WHERE tag = wanted AND (forget_on <= today) IS NOT TRUE;
        IF FOUND THEN
            RETURN first_id;
        END IF;
        UPDATE asynctaskd.unique_tags AS held SET task_id = holder, until = take_unique_tag.until, forget_on = NULL
        WHERE tag = wanted AND forget_on <= today;
        IF FOUND THEN
            RETURN NULL;
        END IF;  -- it was freed, or taken, between the statements: try again
    END LOOP;
END $$;

-- Whether a newcomer to a serial key's line may run now, or has to wait. It may where no committed task is at
-- the head, and a head that isn't claimed yet gives way to a smaller id. Whoever becomes head holds the key's
-- lock until commit; nobody waits for that lock: who doesn't get it waits in the line, behind it anyway.
CREATE FUNCTION asynctaskd.goes_first(key text, newcomer_id bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    head asynctaskd.tasks;
BEGIN
    SELECT * INTO head FROM asynctaskd.tasks
    WHERE serial_key = key AND status IN ('pending', 'scheduled', 'running');
    IF FOUND AND (head.status = 'running' OR newcomer_id IS NULL OR newcomer_id >= head.serial_id) THEN
        RETURN false;
    ELSIF EXISTS (  -- looked at before the lock is taken: it would keep the line from moving until commit
        SELECT FROM asynctaskd.tasks WHERE serial_key = key AND status = 'waiting'
               AND (newcomer_id IS NULL OR serial_id <= newcomer_id)) THEN
        RETURN false;
    ELSIF NOT pg_try_advisory_xact_lock(hashtext('asynctaskd.serial_key'), hashtext(key)) THEN
        RETURN false;
    END IF;
    UPDATE asynctaskd.tasks SET status = 'waiting'
    WHERE serial_key = key AND status IN ('pending', 'scheduled') AND newcomer_id IS NOT NULL
      AND (serial_id IS NULL OR serial_id > newcomer_id);
    RETURN NOT EXISTS (
        SELECT FROM asynctaskd.tasks
        WHERE serial_key = key AND (status IN ('pending', 'scheduled', 'running')
              OR status = 'waiting' AND (newcomer_id IS NULL OR serial_id <= newcomer_id)));
END $$;

-- Lets the first of a serial key's line go where nobody of that key is ahead; returns it, or no row. Each
-- statement looks anew once the lock is held: who held it before may have changed the line.
CREATE FUNCTION asynctaskd.promote_line(key text) RETURNS TABLE (label_set text, status text)
LANGUAGE plpgsql ROWS 1 AS $$
#variable_conflict use_column
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('asynctaskd.serial_key'), hashtext(key)) THEN
        RETURN;
    END IF;
    RETURN QUERY
    UPDATE asynctaskd.tasks
    SET status = CASE WHEN run_at > asynctaskd.clock() THEN 'scheduled' ELSE 'pending' END
    WHERE id = (SELECT t.id FROM asynctaskd.tasks AS t
                WHERE t.serial_key = key AND t.status = 'waiting'
                ORDER BY t.serial_id, t.id LIMIT 1 FOR UPDATE SKIP LOCKED)
      AND NOT EXISTS (SELECT FROM asynctaskd.tasks AS head
                      WHERE head.serial_key = key AND head.status IN ('pending', 'scheduled', 'running'))
    RETURNING label_set, status;
END $$;

-- The root of a parent's tree, locked against a cancel or pause of that tree until commit.
CREATE FUNCTION asynctaskd.lock_root(parent bigint) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    root bigint;
BEGIN
    SELECT coalesce(root_id, id) INTO root FROM asynctaskd.tasks WHERE id = parent;
    IF NOT FOUND THEN
        SELECT coalesce(root_id, id) INTO root FROM asynctaskd.finished_tasks WHERE id = parent;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'parent_id % is not a task, or its record was already forgotten', parent
            USING ERRCODE = 'ATD02', HINT = 'Enqueue the parent first; a task can''t be its own ancestor.';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtext('asynctaskd.tree'), hashint8(root));
    RETURN root;
END $$;

-- Moves live tasks that aren't running to the finished ones; returns how many.
CREATE FUNCTION asynctaskd.finish(ids bigint[], new_status text, why text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    moved bigint;
BEGIN
    PERFORM asynctaskd.ensure_finished_partition(day)
    FROM (SELECT DISTINCT asynctaskd.forget_day(now_is, coalesce(keep, interval '7 days')) AS day
          FROM asynctaskd.tasks WHERE id = ANY (ids)) AS days;
    WITH ended AS (
        DELETE FROM asynctaskd.tasks WHERE id = ANY (ids) AND status <> 'running'
        RETURNING *, now_is AS finished_at, coalesce(keep, interval '7 days') AS kept
    ), archived AS (
        INSERT INTO asynctaskd.finished_tasks
               (id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
                finished_at, forget_on, priority, weight, attempts, failures, losses, max_attempts, worker_id,
                timeout, keep, status, name, label_set, tags, depends_on, unique_tag, serial_key, retry, reason,
                last_error, payload, result, progress, metadata)
        SELECT  id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
                finished_at, asynctaskd.forget_day(finished_at, kept), priority, weight, attempts, failures,
                losses, max_attempts, worker_id, timeout, keep, new_status, name, label_set, tags, depends_on,
                unique_tag, serial_key, retry, why, last_error, payload, NULL, progress, metadata
        FROM ended WHERE kept > interval '0'
    ), tagged AS (
        SELECT tag, until = 'finished' OR kept = interval '0' AS freed,
               asynctaskd.forget_day(finished_at, kept) AS forget_on
        FROM ended CROSS JOIN LATERAL (
            SELECT tag, until FROM asynctaskd.unique_tags WHERE tag = unique_tag AND task_id = ended.id LIMIT 1
        ) AS held
    ), freed AS (
        DELETE FROM asynctaskd.unique_tags WHERE tag = ANY (ARRAY(SELECT tag FROM tagged WHERE freed))
    ), dated AS (
        UPDATE asynctaskd.unique_tags SET forget_on = tagged.forget_on
        FROM tagged
        WHERE unique_tags.tag = ANY (ARRAY(SELECT tag FROM tagged WHERE NOT freed)) AND unique_tags.tag = tagged.tag
    ), told AS (
        INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
        SELECT id, claim_token, claimed_at, new_status, jsonb_build_object('reason', why) FROM ended
    )
    SELECT count(*) INTO moved FROM ended;
    RETURN moved;
END $$;

-- Whether a child of this task is born cancelled.
CREATE FUNCTION asynctaskd.is_cancelled(task bigint) RETURNS boolean
LANGUAGE sql STABLE
RETURN EXISTS (SELECT FROM asynctaskd.finished_tasks WHERE id = task AND status = 'cancelled');

CREATE FUNCTION asynctaskd.enqueue(
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
LANGUAGE plpgsql AS $$
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
BEGIN
    SELECT * INTO declared FROM asynctaskd.definitions WHERE definitions.name = enqueue.name;
    key := coalesce(enqueue.serial_key, declared.serial_key);
    problem := asynctaskd.request_problem(
        enqueue.name, enqueue.payload, enqueue.priority, enqueue.weight, enqueue.labels, enqueue.tags,
        enqueue.unique_tag, enqueue.unique_until, key, enqueue.serial_id, enqueue.delay, enqueue.run_at,
        enqueue.deadline, enqueue.deadline_after, enqueue.timeout, enqueue.retry, enqueue.max_attempts,
        enqueue.keep, enqueue.metadata);
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
        PERFORM asynctaskd.announce(ARRAY[label_key]);
    END IF;
    RETURN new_id;
END $$;

-- The tags among the options of one request, or NULL where they were left out.
CREATE FUNCTION asynctaskd.tags_of(option jsonb) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(option -> 'tags') <> 'null'
       THEN ARRAY(SELECT jsonb_array_elements_text(option -> 'tags')) END;

-- Many tasks in one statement; returns their ids in the order given. Each array has one element a task, or is
-- NULL. An element of `labels` is its labels joined by commas; one of `options` is an object of the remaining
-- arguments of `enqueue`, by name; null leaves one out. All are enqueued, or none.
CREATE FUNCTION asynctaskd.enqueue_many(
    names text[],
    payloads jsonb[],
    priorities integer[] DEFAULT NULL,
    weights integer[] DEFAULT NULL,
    labels text[] DEFAULT NULL,
    options jsonb[] DEFAULT NULL
) RETURNS bigint[]
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    known constant text[] := '{tags,unique_tag,unique_until,on_conflict,serial_key,serial_id,parent_id,delay,run_at,'
                             'deadline,deadline_after,timeout,retry,max_attempts,keep,metadata}';
    problem text;
    detail text;
    advice text;
    code text;
    asked record;
    ids bigint[] := '{}';
BEGIN
    IF (SELECT count(DISTINCT n) FROM unnest(ARRAY[
            cardinality(names), coalesce(cardinality(payloads), -1),
            cardinality(priorities), cardinality(weights), cardinality(labels), cardinality(options)]) AS n) > 1 THEN
        RAISE EXCEPTION 'the arrays must have one element a task: names has %, payloads has %',
            cardinality(names), cardinality(payloads) USING ERRCODE = 'ATD01';
    END IF;
    SELECT format('request %s: %s', place, flaw) INTO problem
    FROM unnest(options) WITH ORDINALITY AS o(option, place) CROSS JOIN LATERAL (
        SELECT 'its options must be an object' AS flaw WHERE jsonb_typeof(option) <> 'object'
        UNION ALL
        SELECT format('unknown option %L', key)
        FROM jsonb_object_keys(CASE WHEN jsonb_typeof(option) = 'object' THEN option END) AS key
        WHERE key <> ALL (known)
    ) AS wrong
    ORDER BY place LIMIT 1;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;

    -- Tags are taken in the order given; whoever brings the same ones in another order waits here, not crosswise.
    PERFORM pg_advisory_xact_lock(hashtext('asynctaskd.unique_tag'), tag)
    FROM (SELECT DISTINCT hashtext(option ->> 'unique_tag') AS tag FROM unnest(options) AS option
          WHERE option ->> 'unique_tag' IS NOT NULL ORDER BY tag) AS tags;

    -- Tags, keys and parents have to be looked at one after the other.
    IF EXISTS (SELECT FROM unnest(options) AS option
               WHERE option ?| '{unique_tag,unique_until,on_conflict,serial_key,serial_id,parent_id}')
       OR EXISTS (SELECT FROM asynctaskd.definitions WHERE name = ANY (names) AND serial_key IS NOT NULL) THEN
        BEGIN
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
        EXCEPTION WHEN SQLSTATE 'ATD01' OR SQLSTATE 'ATD02' OR SQLSTATE 'ATD03' THEN
            GET STACKED DIAGNOSTICS problem = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, advice = PG_EXCEPTION_HINT,
                                    code = RETURNED_SQLSTATE;
            RAISE EXCEPTION 'request %: %', asked.place, problem USING ERRCODE = code,
                DETAIL = detail, HINT = advice;
        END;
        RETURN ids;
    END IF;

    SELECT format('request %s: %s', place, flaw) INTO problem
    FROM unnest(names, payloads, priorities, weights, labels, options) WITH ORDINALITY
         AS request(name, payload, priority, weight, label_list, option, place),
         asynctaskd.request_problem(
             name, payload, priority, weight, string_to_array(label_list, ','),
             asynctaskd.tags_of(option), NULL, NULL, NULL, NULL,
             (option ->> 'delay')::interval, (option ->> 'run_at')::timestamptz,
             (option ->> 'deadline')::timestamptz, (option ->> 'deadline_after')::interval,
             (option ->> 'timeout')::interval, option ->> 'retry',
             (option ->> 'max_attempts')::integer, (option ->> 'keep')::interval,
             nullif(option -> 'metadata', 'null')) AS flaw
    WHERE flaw IS NOT NULL ORDER BY place LIMIT 1;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;

    WITH request AS (
        SELECT u.*, d.*, coalesce((option ->> 'run_at')::timestamptz,
                                  asynctaskd.later(now_is, coalesce((option ->> 'delay')::interval, d.delay))) AS starts_at
        FROM unnest(names, payloads, enqueue_many.priorities, enqueue_many.weights, enqueue_many.labels, options)
                 WITH ORDINALITY AS u(task_name, payload, own_priority, own_weight, label_list, option, place)
             LEFT JOIN asynctaskd.definitions AS d ON d.name = task_name
        ORDER BY place
    ), inserted AS (
        INSERT INTO asynctaskd.tasks (
            created_at, run_at, deadline, priority, weight, max_attempts, timeout, keep, status, name, label_set,
            tags, retry, payload, metadata)
        SELECT now_is, starts_at, coalesce((option ->> 'deadline')::timestamptz,
                        asynctaskd.later(now_is, coalesce((option ->> 'deadline_after')::interval, request.deadline))),
               coalesce(own_priority, request.priority, 0), coalesce(own_weight, request.weight, 1),
               coalesce((option ->> 'max_attempts')::integer,
                        CASE WHEN option ->> 'retry' IS NULL THEN request.max_attempts ELSE 10 END),
               coalesce((option ->> 'timeout')::interval, request.timeout),
               coalesce((option ->> 'keep')::interval, request.keep),
               CASE WHEN starts_at > now_is THEN 'scheduled' ELSE 'pending' END, task_name,
               coalesce(asynctaskd.label_set(string_to_array(label_list, ',')), request.label_set, ''),
               coalesce(asynctaskd.tags_of(option), request.tags, '{}'),
               option ->> 'retry', payload, nullif(option -> 'metadata', 'null')
        FROM request
        RETURNING id, status, label_set
    ), told AS (
        SELECT asynctaskd.announce(array_agg(DISTINCT label_set)) FROM inserted WHERE status = 'pending'
    )
    SELECT array_agg(id ORDER BY id) INTO ids FROM inserted, told;
    RETURN coalesce(ids, '{}');
END $$;

-- schema 1.8
--
-- Steering with an answer: versions of the runtime configuration are published by a control task, applied by every
-- worker between two claims, and acknowledged.

ALTER TABLE asynctaskd.runtime_configs
    -- How long tasks of a label may run, and how often: {label: duration}, {label: executions}.
    ADD COLUMN max_run_times jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN max_attempts jsonb NOT NULL DEFAULT '{}',
    -- Which one it is: where a standby that was behind took over, a number is given a second time.
    ADD COLUMN identity uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    -- Whose change it is, and what it gave a value to, on top of which version.
    ADD COLUMN request_id uuid UNIQUE,
    ADD COLUMN created_by text,
    ADD COLUMN based_on bigint,
    ADD COLUMN changes jsonb NOT NULL DEFAULT '{}',
    -- From then on what it changed has its value of before, and when that was seen to.
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN expired_at timestamptz,
    -- The version that has expired, where this one gives what that had changed its values of before.
    ADD COLUMN takes_back bigint,
    -- Who applies it: everybody; for a while only the worker that tries it; or nobody, since it was rolled back.
    ADD COLUMN reach text NOT NULL DEFAULT 'all' CHECK (reach IN ('all', 'canary', 'nobody')),
    ADD COLUMN canary_worker uuid,
    ADD COLUMN canary_until timestamptz,
    -- What each live worker had finished and failed when it began: {worker: [finished, failed]}.
    ADD COLUMN canary_base jsonb,
    -- The request that promoted it.
    ADD COLUMN settled_by uuid;
ALTER TABLE asynctaskd.runtime_configs ALTER COLUMN created_by SET DEFAULT current_user;

CREATE INDEX runtime_configs_all ON asynctaskd.runtime_configs (version) WHERE reach = 'all';
CREATE INDEX runtime_configs_canary ON asynctaskd.runtime_configs (canary_worker, version) WHERE reach = 'canary';
CREATE INDEX runtime_configs_expiring ON asynctaskd.runtime_configs (expires_at)
    WHERE expires_at IS NOT NULL AND expired_at IS NULL;

ALTER TABLE asynctaskd.workers
    -- Which configuration it applies; NULL: none, or it is of a release that knows numbers alone.
    ADD COLUMN applied_config uuid,
    -- A version that it couldn't read, and why.
    ADD COLUMN rejected_config uuid,
    ADD COLUMN rejected_config_version bigint,
    ADD COLUMN rejected_because text,
    -- What its own configuration says, which holds where a version says nothing.
    ADD COLUMN max_strict_percentage integer,
    -- Executions that have completed or failed since it is there, and those of them that failed.
    ADD COLUMN finished bigint,
    ADD COLUMN failed bigint;
-- Apart: before PostgreSQL 16 no column with a default can be added to a table whose row a function takes.
UPDATE asynctaskd.workers SET finished = 0, failed = 0;
ALTER TABLE asynctaskd.workers
    ALTER COLUMN finished SET DEFAULT 0, ALTER COLUMN finished SET NOT NULL,
    ALTER COLUMN failed SET DEFAULT 0, ALTER COLUMN failed SET NOT NULL;


-- The rules of a change, as the Python client has them (`config/runtime.py`).

-- A value as a message quotes it.
CREATE FUNCTION asynctaskd.shown(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT CASE WHEN char_length(text) > 100 THEN left(text, 100) || '…' ELSE text END
        FROM (SELECT CASE jsonb_typeof(value) WHEN 'string' THEN quote_literal(value #>> '{}')
                                              WHEN 'boolean' THEN initcap(value::text)
                                              WHEN 'null' THEN 'None' ELSE value::text END AS text) AS said);

CREATE FUNCTION asynctaskd.integer_problem(field text, value jsonb, lowest bigint, highest bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
       WHEN jsonb_typeof(value) <> 'number' OR value::text !~ '^-?[0-9]+$'
           THEN format('%s must be an integer, got %s', field, asynctaskd.shown(value))
       WHEN (value #>> '{}')::numeric < lowest THEN format('%s must be at least %s, got %s', field, lowest, value)
       WHEN (value #>> '{}')::numeric > highest THEN format('%s must be at most %s, got %s', field, highest, value) END;

CREATE FUNCTION asynctaskd.label_problem(field text, label jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN jsonb_typeof(label) <> 'string' OR asynctaskd.is_name(label #>> '{}') IS NOT TRUE
       THEN format('%s must name 1 to 128 characters A-Z a-z 0-9 _ . : / -, got %s', field,
                   asynctaskd.shown(label)) END;

-- What is wrong with a mapping of labels to something, but for its values, in words, or NULL; NULL was left out.
CREATE FUNCTION asynctaskd.mapping_problem(field text, given jsonb, to_what text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF jsonb_typeof(given) <> 'object' THEN
        RETURN format('%s must map labels to %s, got %s', field, to_what, asynctaskd.shown(given));
    END IF;
    RETURN (
        SELECT problem
        FROM jsonb_object_keys(given) AS label CROSS JOIN LATERAL (
            SELECT coalesce(
                asynctaskd.label_problem(field, to_jsonb(label)),
                CASE WHEN label IN ('default', '__default__') OR starts_with(label, 'worker:')
                     THEN format('%s can''t name the label %s: it is reserved', field, label) END) AS problem
        ) AS found
        WHERE problem IS NOT NULL ORDER BY label LIMIT 1);
END $$;

-- The same of a mapping of labels to integers.
CREATE FUNCTION asynctaskd.numbers_problem(field text, numbers jsonb, lowest bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(asynctaskd.mapping_problem(field, numbers, 'integers'), (
    SELECT problem FROM jsonb_each(numbers) AS each(label, number) CROSS JOIN LATERAL
        asynctaskd.integer_problem(format('%s[%s]', field, label), number, lowest, 2147483647) AS problem
    WHERE problem IS NOT NULL ORDER BY label LIMIT 1));

-- What is wrong with a list of names, in words, or NULL; NULL was left out.
CREATE FUNCTION asynctaskd.names_problem(field text, names jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF jsonb_typeof(names) <> 'array' THEN
        RETURN format('%s must be a list, got %s', field, asynctaskd.shown(names));
    END IF;
    RETURN (SELECT problem FROM jsonb_array_elements(names) AS name
                CROSS JOIN LATERAL asynctaskd.label_problem(field, name) AS problem
            WHERE problem IS NOT NULL LIMIT 1);
END $$;

-- What is wrong with a written duration, in words, or NULL; NULL was left out.
CREATE FUNCTION asynctaskd.duration_problem(field text, duration jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF jsonb_typeof(duration) <> 'string' OR duration #>> '{}' !~
            '\A(?=[0-9])(?:[0-9]+d)?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+s)?(?:[0-9]+ms)?\Z' THEN
        RETURN format('%s: malformed duration %s: write it as 500ms, 5s, 30m, 1h30m or 1d', field,
                      asynctaskd.shown(duration));
    ELSIF asynctaskd.milliseconds(duration #>> '{}') NOT BETWEEN 1 AND 36525 * 86400000::numeric THEN
        RETURN format('%s must be more than 0s and at most 36525d, got %s', field, asynctaskd.shown(duration));
    END IF;
    RETURN NULL;
END $$;

-- What is wrong with a mapping of labels to durations, in words, or NULL; NULL was left out.
CREATE FUNCTION asynctaskd.durations_problem(field text, durations jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(asynctaskd.mapping_problem(field, durations, 'durations'), (
    SELECT problem FROM jsonb_each(durations) AS each(label, duration) CROSS JOIN LATERAL
        asynctaskd.duration_problem(format('%s[%s]', field, label), duration) AS problem
    WHERE problem IS NOT NULL ORDER BY label LIMIT 1));

CREATE FUNCTION asynctaskd.duration_of(duration text) RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN make_interval(secs => (asynctaskd.milliseconds(duration) / 1000)::float8);

-- The fields of a change, by their names: where labels and weights come as two lists they become a mapping, in which
-- the last of a label counts.
CREATE FUNCTION asynctaskd.runtime_config_fields(changes jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN changes ? 'labels' THEN
           changes - '{labels,expires,canary,canary_worker,rollback_to,promote}'::text[] || jsonb_build_object(
               'weights', (SELECT coalesce(jsonb_object_agg(label, changes -> 'weights' -> (nth - 1)::integer
                                                            ORDER BY nth), '{}')
                           FROM jsonb_array_elements_text(changes -> 'labels') WITH ORDINALITY AS l(label, nth)))
       ELSE changes - '{expires,canary,canary_worker,rollback_to,promote}'::text[] END;

-- What is wrong with the form of a change, in words, or NULL: which fields there are, and which go together.
CREATE FUNCTION asynctaskd.runtime_config_form_problem(changes jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    fields constant text[] :=
        '{max_strict_percentage,default_weight,weights,limits,max_run_times,max_attempts,paused_labels,paused_names}';
    others constant text[] := '{labels,expires,canary,canary_worker,rollback_to,promote}';
    unknown text;
    problem text;
BEGIN
    IF jsonb_typeof(changes) IS DISTINCT FROM 'object' THEN
        RETURN format('a change of the runtime configuration must be an object, got %s',
                      coalesce(asynctaskd.shown(changes), 'NULL'));
    END IF;
    SELECT key INTO unknown FROM jsonb_object_keys(changes) AS key WHERE key <> ALL (fields || others) LIMIT 1;
    IF unknown IS NOT NULL THEN
        RETURN format('unknown runtime configuration field %s; known are %s', unknown,
                      array_to_string(fields, ', '));
    ELSIF changes ?| '{promote,rollback_to}' AND (SELECT count(*) FROM jsonb_object_keys(changes)) > 1 THEN
        RETURN 'promote and rollback_to can''t be combined with other fields';
    ELSIF changes ? 'promote' AND changes -> 'promote' <> 'true' THEN
        RETURN format('promote must be True, got %s', asynctaskd.shown(changes -> 'promote'));
    ELSIF changes -> 'rollback_to' <> '"previous"' THEN
        RETURN asynctaskd.integer_problem('rollback_to', changes -> 'rollback_to', 0, 9223372036854775807);
    ELSIF NOT changes ?| (fields || '{labels,promote,rollback_to}') THEN
        RETURN 'a change of the runtime configuration must name at least one field';
    ELSIF changes ? 'labels' THEN
        problem := asynctaskd.names_problem('labels', changes -> 'labels');
        IF problem IS NOT NULL THEN
            RETURN problem;
        ELSIF jsonb_typeof(changes -> 'weights') IS DISTINCT FROM 'array' THEN
            RETURN 'labels need weights, a list of the same length';
        ELSIF jsonb_array_length(changes -> 'labels') <> jsonb_array_length(changes -> 'weights') THEN
            RETURN format('labels and weights must have the same length, got %s and %s',
                          jsonb_array_length(changes -> 'labels'), jsonb_array_length(changes -> 'weights'));
        END IF;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION asynctaskd.canary_problem(changes jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF changes ? 'canary_worker' THEN
        IF NOT changes ? 'canary' THEN
            RETURN 'canary_worker needs canary, for how long';
        ELSIF changes ->> 'canary_worker' !~* '^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$' THEN
            RETURN format('canary_worker must be the id of a worker, got %s',
                          asynctaskd.shown(changes -> 'canary_worker'));
        END IF;
    END IF;
    IF changes ? 'canary' AND changes ? 'expires' AND asynctaskd.duration_of(changes ->> 'canary')
                                                     >= asynctaskd.duration_of(changes ->> 'expires') THEN
        RETURN format('canary must be shorter than expires, got %s and %s', changes ->> 'canary',
                      changes ->> 'expires');
    END IF;
    RETURN NULL;
END $$;

-- The first rule that a change breaks, in words that name the field, or NULL.
CREATE FUNCTION asynctaskd.runtime_config_problem(changes jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    problem text := asynctaskd.runtime_config_form_problem(changes);
    fields jsonb;
BEGIN
    IF problem IS NOT NULL THEN
        RETURN problem;
    END IF;
    fields := asynctaskd.runtime_config_fields(changes);
    problem := coalesce(
        CASE WHEN fields -> 'max_strict_percentage' <> 'null' THEN
            asynctaskd.integer_problem('max_strict_percentage', fields -> 'max_strict_percentage', 0, 100) END,
        CASE WHEN fields ? 'default_weight' THEN
            asynctaskd.integer_problem('default_weight', fields -> 'default_weight', 1, 2147483647) END,
        asynctaskd.numbers_problem('weights', fields -> 'weights', 1),
        asynctaskd.numbers_problem('limits', fields -> 'limits', 0),
        asynctaskd.durations_problem('max_run_times', fields -> 'max_run_times'),
        asynctaskd.numbers_problem('max_attempts', fields -> 'max_attempts', 1),
        asynctaskd.names_problem('paused_labels', fields -> 'paused_labels'),
        asynctaskd.names_problem('paused_names', fields -> 'paused_names'),
        asynctaskd.duration_problem('expires', changes -> 'expires'),
        asynctaskd.duration_problem('canary', changes -> 'canary'));
    RETURN coalesce(problem, asynctaskd.canary_problem(changes));
END $$;

-- Every row keeps to these rules, whoever writes it: what workers can't read, they reject, and the next change would
-- copy it. A row that is there from before is left alone.
CREATE FUNCTION asynctaskd.check_runtime_config() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    problem text := coalesce(
        asynctaskd.integer_problem('version', to_jsonb(NEW.version), 1, 2147483647),
        asynctaskd.runtime_config_problem(jsonb_build_object(
            'max_strict_percentage', NEW.max_strict_percentage, 'default_weight', NEW.default_weight,
            'weights', NEW.weights, 'limits', NEW.limits, 'max_run_times', NEW.max_run_times,
            'max_attempts', NEW.max_attempts, 'paused_labels', NEW.paused_labels, 'paused_names', NEW.paused_names)));
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER runtime_configs_readable
    BEFORE INSERT OR UPDATE OF
        version, max_strict_percentage, default_weight, weights, limits, max_run_times, max_attempts, paused_labels,
        paused_names
    ON asynctaskd.runtime_configs FOR EACH ROW EXECUTE FUNCTION asynctaskd.check_runtime_config();


-- Versions. Whoever writes one holds the lock below until its transaction ends: commit order is version order.

CREATE FUNCTION asynctaskd.lock_runtime_configs() RETURNS void
LANGUAGE sql
RETURN pg_advisory_xact_lock(hashtext('asynctaskd.runtime_configs'), 0);

-- The request behind a control task: the same each time that it is tried.
CREATE FUNCTION asynctaskd.config_request(task bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN md5('asynctaskd control task ' || task)::uuid;

-- The newest version that is for everybody, or 0.
CREATE FUNCTION asynctaskd.newest_for_all() RETURNS bigint
LANGUAGE sql STABLE
RETURN coalesce((SELECT version FROM asynctaskd.runtime_configs WHERE reach = 'all' ORDER BY version DESC LIMIT 1), 0);

-- What a worker says of a version, as a number to compare: 0 where that configuration isn't of this history, since a
-- standby took over that didn't have it.
CREATE FUNCTION asynctaskd.known_version(number bigint, config uuid) RETURNS bigint
LANGUAGE sql STABLE
RETURN CASE WHEN config IS NULL
                 OR EXISTS (SELECT FROM asynctaskd.runtime_configs AS c WHERE c.identity = config) THEN number
            ELSE 0 END;

-- What a version says, by field; of one that there isn't (0) the defaults.
CREATE FUNCTION asynctaskd.runtime_config_content(wanted bigint) RETURNS jsonb
LANGUAGE sql STABLE
RETURN coalesce(
    (SELECT jsonb_build_object(
                'max_strict_percentage', max_strict_percentage, 'default_weight', default_weight,
                'weights', weights, 'limits', limits, 'max_run_times', max_run_times, 'max_attempts', max_attempts,
                'paused_labels', paused_labels, 'paused_names', paused_names)
     FROM asynctaskd.runtime_configs WHERE version = wanted),
    '{"max_strict_percentage": null, "default_weight": 1, "weights": {}, "limits": {}, "max_run_times": {},
      "max_attempts": {}, "paused_labels": [], "paused_names": []}');

-- Refuses to go on from a version, there from before, with which this content couldn't be read.
CREATE FUNCTION asynctaskd.require_readable(content jsonb, version bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    problem text := asynctaskd.runtime_config_problem(content);
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', format(
            'version %s of the runtime configuration can''t be read: %s; set that field as a whole, or roll back to an '
            'earlier version', version, problem) USING ERRCODE = 'ATD04';
    END IF;
END $$;

-- Writes the next version and tells the workers; the lock is held. A canary that is being watched ends.
CREATE FUNCTION asynctaskd.write_runtime_config(
    content jsonb, changes jsonb, base bigint, request uuid DEFAULT NULL, author text DEFAULT NULL,
    expires interval DEFAULT NULL, canary interval DEFAULT NULL, canary_id uuid DEFAULT NULL,
    takes_back bigint DEFAULT NULL
) RETURNS asynctaskd.runtime_configs
LANGUAGE plpgsql AS $$
DECLARE
    now_is timestamptz := asynctaskd.clock();
    written asynctaskd.runtime_configs;
BEGIN
    UPDATE asynctaskd.runtime_configs SET reach = 'nobody' WHERE reach = 'canary';
    INSERT INTO asynctaskd.runtime_configs (
        version, max_strict_percentage, default_weight, weights, limits, max_run_times, max_attempts, paused_labels,
        paused_names, created_at, request_id, created_by, based_on, changes, expires_at, takes_back, reach, canary_worker, canary_until,
        canary_base)
    SELECT coalesce(max(version), 0) + 1, (content ->> 'max_strict_percentage')::integer,
           (content ->> 'default_weight')::integer, content -> 'weights', content -> 'limits',
           content -> 'max_run_times', content -> 'max_attempts',
           ARRAY(SELECT jsonb_array_elements_text(content -> 'paused_labels')),
           ARRAY(SELECT jsonb_array_elements_text(content -> 'paused_names')), now_is,
           request, coalesce(author, current_user), base, write_runtime_config.changes,
           asynctaskd.later(now_is, expires), write_runtime_config.takes_back,
           CASE WHEN canary_id IS NULL THEN 'all' ELSE 'canary' END, canary_id,
           asynctaskd.later(now_is, canary),
           CASE WHEN canary_id IS NOT NULL THEN (
               SELECT jsonb_object_agg(id, jsonb_build_array(finished, failed))
               FROM asynctaskd.workers WHERE asynctaskd.is_live(workers)) END
    FROM asynctaskd.runtime_configs
    RETURNING * INTO written;
    PERFORM asynctaskd.tell_runtime_config(written.request_id, written.version);
    RETURN written;
END $$;

CREATE FUNCTION asynctaskd.tell_runtime_config(request uuid, version bigint) RETURNS void
LANGUAGE sql
RETURN pg_notify('asynctaskd_runtime_config', json_build_object(
    'op', 'up_config', 'params', json_build_object('request_id', request, 'version', version))::text);

-- The worker that tries a change: the one that is asked for by its id or name, else the busiest of the live ones that
-- run tasks; a disabled one has no labels, not even that of its own name.
CREATE FUNCTION asynctaskd.canary_of(asked uuid) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    chosen uuid;
BEGIN
    SELECT id INTO chosen FROM asynctaskd.workers AS w
    WHERE asynctaskd.is_live(w) AND (asked IN (id, name) OR asked IS NULL AND labels <> '{}')
    ORDER BY finished DESC, running DESC, started_at LIMIT 1;
    IF chosen IS NULL THEN
        RAISE EXCEPTION 'canary: %', CASE WHEN asked IS NULL THEN 'there is no live worker that could try the change'
                                          ELSE format('worker %s isn''t live', asked) END USING ERRCODE = 'ATD04';
    END IF;
    RETURN chosen;
END $$;

CREATE FUNCTION asynctaskd.promote_runtime_config(request uuid) RETURNS asynctaskd.runtime_configs
LANGUAGE plpgsql AS $$
DECLARE
    promoted asynctaskd.runtime_configs;
BEGIN
    UPDATE asynctaskd.runtime_configs SET reach = 'all', settled_by = request WHERE reach = 'canary'
    RETURNING * INTO promoted;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no canary to promote' USING ERRCODE = 'ATD04';
    END IF;
    PERFORM asynctaskd.tell_runtime_config(promoted.request_id, promoted.version);
    RETURN promoted;
END $$;

-- The version to go back to: the one before what is tried, else before what holds. NULL where there is none.
CREATE FUNCTION asynctaskd.previous_runtime_config() RETURNS bigint
LANGUAGE sql STABLE
RETURN (SELECT coalesce(based_on, (SELECT max(b.version) FROM asynctaskd.runtime_configs AS b
                                   WHERE b.reach = 'all' AND b.version < c.version), 0)
        FROM asynctaskd.runtime_configs AS c
        WHERE reach IN ('all', 'canary') ORDER BY version DESC LIMIT 1);

-- What is new in a content, compared with another.
CREATE FUNCTION asynctaskd.difference(content jsonb, base jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(content)
        WHERE value <> base -> key);

CREATE FUNCTION asynctaskd.roll_back_runtime_config(target bigint, request uuid, author text)
RETURNS asynctaskd.runtime_configs
LANGUAGE plpgsql AS $$
DECLARE
    base bigint := asynctaskd.newest_for_all();
    content jsonb := asynctaskd.runtime_config_content(target);
BEGIN
    IF target IS NULL THEN
        RAISE EXCEPTION 'there is no version to go back from' USING ERRCODE = 'ATD04';
    ELSIF target > 0 AND NOT EXISTS (SELECT FROM asynctaskd.runtime_configs WHERE version = target) THEN
        RAISE EXCEPTION 'rollback_to: there is no version %', target USING ERRCODE = 'ATD01';
    END IF;
    PERFORM asynctaskd.require_readable(content, target);
    RETURN asynctaskd.write_runtime_config(
        content, asynctaskd.difference(content, asynctaskd.runtime_config_content(base)), base, request, author);
END $$;

-- Writes the version that a change asks for, and returns it; one that its request has written already stays as it is.
-- `changes` are the fields that get another value, and beside them `expires` and `canary` (durations), `canary_worker`;
-- or `promote` alone, or `rollback_to` a version or "previous".
CREATE FUNCTION asynctaskd.publish_runtime_config(
    changes jsonb, request uuid DEFAULT gen_random_uuid(), author text DEFAULT NULL
) RETURNS asynctaskd.runtime_configs
LANGUAGE plpgsql AS $$
DECLARE
    problem text := asynctaskd.runtime_config_problem(changes);
    fields jsonb := asynctaskd.runtime_config_fields(changes);
    base bigint;
    content jsonb;
    published asynctaskd.runtime_configs;
BEGIN
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    PERFORM asynctaskd.lock_runtime_configs();
    SELECT * INTO published FROM asynctaskd.runtime_configs WHERE request IN (request_id, settled_by);
    IF FOUND THEN
        RETURN published;
    ELSIF changes ? 'promote' THEN
        RETURN asynctaskd.promote_runtime_config(request);
    ELSIF changes ? 'rollback_to' THEN
        RETURN asynctaskd.roll_back_runtime_config(
            CASE changes ->> 'rollback_to' WHEN 'previous' THEN asynctaskd.previous_runtime_config()
                                           ELSE (changes ->> 'rollback_to')::bigint END, request, author);
    END IF;
    base := asynctaskd.newest_for_all();
    content := asynctaskd.runtime_config_content(base) || fields;
    PERFORM asynctaskd.require_readable(content, base);
    RETURN asynctaskd.write_runtime_config(
        content, fields, base, request, author,
        asynctaskd.duration_of(changes ->> 'expires'), asynctaskd.duration_of(changes ->> 'canary'),
        CASE WHEN changes ? 'canary' THEN asynctaskd.canary_of((changes ->> 'canary_worker')::uuid) END);
END $$;

-- Adds what an App declares of labels, {field: {label: value}}, where nothing is said of it yet; what operators have set
-- is never changed. Whether that is settled: nobody waits for whoever is changing the configuration or trying a change,
-- but comes again.
CREATE FUNCTION asynctaskd.declare_labels(declared jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    base bigint;
    content jsonb;
    fields jsonb;
    is_locked boolean := false;
BEGIN
    LOOP
        base := asynctaskd.newest_for_all();
        content := asynctaskd.runtime_config_content(base);
        SELECT jsonb_object_agg(field, labels || (content -> field)) INTO fields
        FROM jsonb_each(declared) AS each(field, labels) WHERE labels || (content -> field) <> content -> field;
        IF fields IS NULL THEN
            RETURN true;
        END IF;
        EXIT WHEN is_locked;
        -- Only now: most starts have nothing to add. What they saw may have changed meanwhile.
        IF NOT pg_try_advisory_xact_lock(hashtext('asynctaskd.runtime_configs'), 0) THEN
            RETURN false;
        END IF;
        is_locked := true;
    END LOOP;
    -- A version from before that can't be read is for operators to mend.
    IF EXISTS (SELECT FROM asynctaskd.runtime_configs WHERE reach = 'canary')
       OR asynctaskd.runtime_config_problem(content || fields) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM asynctaskd.write_runtime_config(content || fields, fields, base, author => 'an App');
    RETURN true;
END $$;

-- Ends a canary, if that version still is one: for all with `promoted`, else with a new version of the old content.
-- Returns the version that is to hold everywhere, or NULL where somebody else has ended it.
CREATE FUNCTION asynctaskd.settle_canary(canary uuid, promoted boolean) RETURNS asynctaskd.runtime_configs
LANGUAGE plpgsql AS $$
DECLARE
    tried asynctaskd.runtime_configs;
BEGIN
    PERFORM asynctaskd.lock_runtime_configs();
    SELECT * INTO tried FROM asynctaskd.runtime_configs WHERE identity = canary AND reach = 'canary';
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF promoted THEN
        RETURN asynctaskd.promote_runtime_config(NULL);
    END IF;
    RETURN asynctaskd.roll_back_runtime_config(tried.based_on, NULL, NULL);
END $$;

-- The entries of a field's value: of a mapping its own, of a list its names, and a single value is the entry ''.
CREATE FUNCTION asynctaskd.entries_of(value jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE jsonb_typeof(value)
       WHEN 'object' THEN value
       WHEN 'array' THEN (SELECT coalesce(jsonb_object_agg(name, true), '{}')
                          FROM jsonb_array_elements_text(value) AS name)
       ELSE jsonb_build_object('', value) END;

-- The versions for everybody that gave entries of a field the values they have there, with what was before; those don't
-- count that have expired (but for `due`), and what takes them back gives nothing of its own. One that names a field
-- and changes nothing of it says that all of its entries are meant, also those that there aren't (`of_all`).
CREATE FUNCTION asynctaskd.givers(field text, due bigint)
RETURNS TABLE (version bigint, given jsonb, before jsonb, of_all boolean)
LANGUAGE sql STABLE AS $$
    SELECT said.version, asynctaskd.entries_of(value), asynctaskd.entries_of(earlier), value = earlier
    FROM (SELECT c.version, c.changes ? field AS is_named, to_jsonb(c) -> field AS value,
                 c.expired_at IS NULL AND c.takes_back IS NULL AS holds,
                 -- A row that was inserted as it is doesn't say what it is based on: that is always the one before it.
                 lag(to_jsonb(c) -> field, 1, asynctaskd.runtime_config_content(0) -> field)
                     OVER (ORDER BY c.version) AS earlier
          FROM asynctaskd.runtime_configs AS c WHERE c.reach = 'all') AS said
    WHERE (holds OR said.version = due) AND (is_named OR value <> earlier)
$$;

-- A field's value without what has expired: each entry that the version `due` has given what it is now is again what it
-- was before. So a later change of one entry doesn't make the others permanent. All versions are read at once: there
-- may be any number of them.
CREATE FUNCTION asynctaskd.without_expired(due bigint, field text, value jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $$
DECLARE
    entries jsonb := asynctaskd.entries_of(value);
    gone text[];
    earlier jsonb;
BEGIN
    WITH giver AS MATERIALIZED (
        SELECT * FROM asynctaskd.givers(field, due)
    ), entry AS (
        SELECT DISTINCT name FROM giver CROSS JOIN LATERAL jsonb_object_keys(given || before) AS name
        WHERE version <= due
    ), expired AS MATERIALIZED (
        SELECT name FROM entry
        WHERE due = (SELECT max(version) FROM giver
                     WHERE version >= due AND (of_all OR given -> name IS DISTINCT FROM before -> name))
    )
    SELECT array_agg(name), jsonb_object_agg(name, last.value) FILTER (WHERE last.value IS NOT NULL)
    INTO gone, earlier
    FROM expired LEFT JOIN LATERAL (
        SELECT true AS is_there, given -> name AS value FROM giver
        WHERE version < due AND (of_all OR given -> name IS DISTINCT FROM before -> name)
        ORDER BY version DESC LIMIT 1
    ) AS found ON true CROSS JOIN LATERAL (
        SELECT CASE WHEN is_there THEN found.value
                    ELSE asynctaskd.entries_of(asynctaskd.runtime_config_content(0) -> field) -> name END AS value
    ) AS last;
    entries := entries - coalesce(gone, '{}') || coalesce(earlier, '{}');
    RETURN CASE jsonb_typeof(value)
           WHEN 'object' THEN entries
           WHEN 'array' THEN (SELECT coalesce(jsonb_agg(name ORDER BY name), '[]')
                              FROM jsonb_object_keys(entries) AS name)
           ELSE entries -> '' END;
END $$;

-- Takes back what has expired, as far as nothing newer has made something else of it; returns how many versions that
-- took.
CREATE FUNCTION asynctaskd.expire_runtime_configs() RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    due asynctaskd.runtime_configs;
    base bigint;
    content jsonb;
    restored jsonb;
    written integer := 0;
    since constant timestamptz := clock_timestamp();
BEGIN
    IF NOT EXISTS (SELECT FROM asynctaskd.runtime_configs
                   -- The time from a subquery: by index, and not row by row.
                   WHERE expires_at <= (SELECT asynctaskd.clock()) AND expired_at IS NULL) THEN
        RETURN 0;
    END IF;
    -- Whoever has the lock may keep it for long, or is doing just this: housekeeping doesn't wait, but comes again.
    IF NOT pg_try_advisory_xact_lock(hashtext('asynctaskd.runtime_configs'), 0) THEN
        RETURN 0;
    END IF;
    FOR due IN SELECT * FROM asynctaskd.runtime_configs
               WHERE expires_at IS NOT NULL AND expired_at IS NULL AND expires_at <= asynctaskd.clock()
               ORDER BY expires_at, version
    LOOP
        EXIT WHEN clock_timestamp() > since + interval '1 s';  -- housekeeping comes again for the others
        base := asynctaskd.newest_for_all();
        content := asynctaskd.runtime_config_content(base);
        restored := (SELECT coalesce(jsonb_object_agg(field, value), '{}')
                     FROM jsonb_object_keys(due.changes) AS field
                          CROSS JOIN LATERAL asynctaskd.without_expired(due.version, field, content -> field) AS value
                     WHERE due.reach = 'all' AND value <> content -> field);
        -- It expires once there is something that can be read to go on from.
        CONTINUE WHEN asynctaskd.runtime_config_problem(content || restored) IS NOT NULL;
        UPDATE asynctaskd.runtime_configs SET expired_at = asynctaskd.clock() WHERE version = due.version;
        IF restored <> '{}' OR due.reach = 'canary' THEN
            PERFORM asynctaskd.write_runtime_config(
                content || restored, restored, base, takes_back => due.version);
            written := written + 1;
        END IF;
    END LOOP;
    RETURN written;
END $$;


-- Writes the versions that were asked for and that no worker has come to, in their order, so that what is written at
-- once after them overtakes none. A worker that carries out such a task later finds its version there, superseded. What
-- breaks a rule, or needs a worker, ends as it would at a worker's hands.
CREATE FUNCTION asynctaskd.publish_waiting_configs() RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    waiting record;
BEGIN
    PERFORM asynctaskd.lock_runtime_configs();
    FOR waiting IN SELECT id, payload, metadata ->> 'created_by' AS author FROM asynctaskd.tasks
                   WHERE label_set = '!control' AND status IN ('pending', 'scheduled', 'running') AND requested IS NULL
                   ORDER BY id
    LOOP
        BEGIN
            PERFORM asynctaskd.publish_runtime_config(
                waiting.payload, asynctaskd.config_request(waiting.id), waiting.author);
        EXCEPTION WHEN SQLSTATE 'ATD01' OR SQLSTATE 'ATD04' THEN
            PERFORM asynctaskd.finish(
                ARRAY[waiting.id], 'failed',
                CASE SQLSTATE WHEN 'ATD01' THEN 'invalid_payload' ELSE 'terminated' END, SQLERRM);
        END;
    END LOOP;
END $$;

-- The way in, for the client, the command line and plain SQL: a control task that a worker carries out, outside its
-- slots; no worker's labels hold "!control", so that no ordinary claim takes it. Where there is no live worker the
-- version is written at once, and the task is one that has completed. Returns the task's id; its result is the report.
CREATE FUNCTION asynctaskd.update_runtime_config(changes jsonb, timeout interval DEFAULT '30 s') RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    problem text := asynctaskd.runtime_config_problem(changes);
    now_is timestamptz := asynctaskd.clock();
    keep constant interval := '7 days';
    new_id bigint;
    written bigint;
BEGIN
    IF problem IS NULL AND (timeout <= interval '0' OR timeout > interval '36525 days') IS NOT FALSE THEN
        problem := format('timeout must be more than 0 and at most 36525 days, got %s', timeout);
    END IF;
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem USING ERRCODE = 'ATD01';
    END IF;
    new_id := nextval('asynctaskd.task_ids');
    IF EXISTS (SELECT FROM asynctaskd.workers WHERE asynctaskd.is_live(workers)) THEN
        INSERT INTO asynctaskd.tasks (id, created_at, status, name, label_set, priority, timeout, payload, metadata)
        VALUES (new_id, now_is, 'pending', 'updateWorkerRuntimeConfig', '!control', 2147483647,
                timeout + coalesce(asynctaskd.duration_of(changes ->> 'canary'), '0'), changes,
                jsonb_build_object('created_by', current_user));
        PERFORM pg_notify('asynctaskd_ready', '!control');
        RETURN new_id;
    END IF;
    PERFORM asynctaskd.publish_waiting_configs();
    written := (asynctaskd.publish_runtime_config(changes, asynctaskd.config_request(new_id))).version;
    PERFORM asynctaskd.ensure_finished_partition(asynctaskd.forget_day(now_is, keep));
    INSERT INTO asynctaskd.finished_tasks (
        id, claim_token, created_at, finished_at, forget_on, priority, weight, attempts, failures, losses, timeout,
        status, name, label_set, tags, depends_on, payload, result)
    VALUES (new_id, 0, now_is, now_is, asynctaskd.forget_day(now_is, keep), 2147483647, 1, 0, 0, 0, timeout,
            'completed', 'updateWorkerRuntimeConfig', '!control', '{}', '{}', changes,
            jsonb_build_object('version', written, 'status', 'converged', 'applied', '[]'::jsonb,
                               'lagging', '[]'::jsonb, 'rejected', '{}'::jsonb));
    RETURN new_id;
END $$;

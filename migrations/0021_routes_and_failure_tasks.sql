-- schema 1.19
--
-- A failure task stays one for as long as its record is kept: an operator's retry changes nothing about that. And a route
-- slows nobody else's batches down.

-- Enqueues a failure task, whose metadata say of which task (`failure_of`); returns its id, or NULL where the task that
-- failed is one itself.
CREATE OR REPLACE FUNCTION asynctaskd.enqueue_failure_task(failed bigint, name text, payload jsonb) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    new_id bigint;
BEGIN
    IF EXISTS (SELECT FROM asynctaskd.failure_tasks WHERE id = failed)
       OR EXISTS (SELECT FROM asynctaskd.all_tasks WHERE id = failed AND metadata ? 'failure_of') THEN
        RETURN NULL;
    END IF;
    new_id := asynctaskd.enqueue(name, payload, encoded => true, metadata => jsonb_build_object('failure_of', failed));
    INSERT INTO asynctaskd.failure_tasks (id, failed_id) VALUES (new_id, failed);
    RETURN new_id;
END $$;

-- As before, but a route makes only those go one by one that it is the route of.
CREATE OR REPLACE FUNCTION asynctaskd.enqueue_written(
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
    own record;     -- what the definitions of those names say
    routed record;  -- what the routes of the others say
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
    SELECT array_agg(d.name) AS names, bool_or(d.serial_key IS NOT NULL) AS is_serial, bool_or(d.codec IS NOT NULL) AS is_coded
    INTO own FROM asynctaskd.definitions AS d WHERE d.name = ANY (kinds.names);
    SELECT bool_or(route.serial_key IS NOT NULL) AS is_serial, bool_or(route.codec IS NOT NULL) AS is_coded INTO routed
    FROM (SELECT unnest(kinds.names) EXCEPT SELECT unnest(own.names)) AS other (name),
         LATERAL asynctaskd.route_of(other.name) AS route;
    IF EXISTS (SELECT FROM unnest(kinds.options) AS option
               WHERE option ?| '{unique_tag,unique_until,on_conflict,serial_key,serial_id,parent_id,depends_on,cron,'
                                'idempotence_token}')
       OR 'updateWorkerRuntimeConfig' = ANY (kinds.names)
       OR own.is_serial OR routed.is_serial
       OR (own.is_coded OR routed.is_coded) AND EXISTS (
           SELECT FROM unnest(kinds.options) AS option WHERE option -> 'encoded' IS DISTINCT FROM 'true') THEN
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

-- What each role may do: all of it, and nothing else. Run after every migration once roles were made, by their owner.
--
-- It begins at nothing, so that a right which is taken out of this file is gone. What isn't named here belongs to the
-- owner and, where it is a function, to workers. CREATE OR REPLACE makes a function run with its caller's rights again;
-- the end of this file takes that back.

DO $$
DECLARE
    schema regnamespace := (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass);
    kind text;
BEGIN
    FOREACH kind IN ARRAY '{ALL TABLES IN SCHEMA, ALL SEQUENCES IN SCHEMA, ALL ROUTINES IN SCHEMA, SCHEMA}'::text[] LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM PUBLIC, asynctaskd_worker, asynctaskd_enqueuer, asynctaskd_operator, '
                       'asynctaskd_viewer', kind, schema);
    END LOOP;
    EXECUTE format('GRANT USAGE ON SCHEMA %s TO asynctaskd_worker, asynctaskd_enqueuer, asynctaskd_operator, '
                   'asynctaskd_viewer', schema);
    EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %s TO asynctaskd_worker', schema);
    EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA %s TO asynctaskd_worker', schema);
END $$;

-- Workers: rows, and no table. Partitions are made and dropped by functions, for days only.
GRANT SELECT, INSERT, UPDATE, DELETE ON
    asynctaskd.tasks, asynctaskd.finished_tasks, asynctaskd.task_events, asynctaskd.unique_tags, asynctaskd.dependencies,
    asynctaskd.trees, asynctaskd.failure_tasks, asynctaskd.definitions, asynctaskd.workers, asynctaskd.label_permits,
    asynctaskd.runtime_configs, asynctaskd.commands, asynctaskd.receipts, asynctaskd.schedules,
    asynctaskd.schedule_slots, asynctaskd.retention, asynctaskd.watchers, asynctaskd.claims_told
    TO asynctaskd_worker;

-- Enqueuers: the functions. `enqueue_many` is a word for `enqueue_written`.
GRANT EXECUTE ON ROUTINE
    asynctaskd.enqueue, asynctaskd.enqueue_many, asynctaskd.enqueue_written, asynctaskd.schedule_by_enqueue
    TO asynctaskd_enqueuer, asynctaskd_operator;

-- Operators: they read everything, and change it by functions that leave a trace.
GRANT SELECT ON
    asynctaskd.tasks, asynctaskd.finished_tasks, asynctaskd.all_tasks, asynctaskd.task_events, asynctaskd.unique_tags,
    asynctaskd.trees, asynctaskd.failure_tasks, asynctaskd.schedules, asynctaskd.retention
    TO asynctaskd_operator;
GRANT EXECUTE ON ROUTINE
    asynctaskd.command, asynctaskd.reprioritize, asynctaskd.settle_request, asynctaskd.withdraw, asynctaskd.selected,
    asynctaskd.selection_problem, asynctaskd.fits, asynctaskd.with_descendants, asynctaskd.update_runtime_config,
    asynctaskd.config_request, asynctaskd.put_schedule, asynctaskd.pause_schedule, asynctaskd.resume_schedule,
    asynctaskd.remove_schedule, asynctaskd.run_schedule, asynctaskd.note_audit
    TO asynctaskd_operator;

-- Viewers: what there is, without what tasks carry; and not who watches, since whoever knows a watcher's id may end it.
GRANT SELECT ON
    asynctaskd.task_list, asynctaskd.event_list, asynctaskd.schedule_list, asynctaskd.notices, asynctaskd.workers,
    asynctaskd.definitions, asynctaskd.runtime_configs, asynctaskd.commands, asynctaskd.receipts,
    asynctaskd.schedule_slots, asynctaskd.label_permits, asynctaskd.dependencies, asynctaskd.claims_told,
    asynctaskd.migrations, asynctaskd.audit, asynctaskd.desired_slots
    TO asynctaskd_viewer, asynctaskd_operator, asynctaskd_worker;
GRANT SELECT ON asynctaskd.all_tasks TO asynctaskd_worker;
-- Where new ones begin.
GRANT SELECT ON SEQUENCE asynctaskd.task_ids TO asynctaskd_viewer, asynctaskd_operator;
GRANT SELECT (id) ON asynctaskd.task_events TO asynctaskd_viewer;
GRANT EXECUTE ON ROUTINE
    asynctaskd.overview, asynctaskd.why, asynctaskd.new_tasks, asynctaskd.new_events, asynctaskd.watch,
    asynctaskd.without_values, asynctaskd.may_read_values, asynctaskd.caller, asynctaskd.clock, asynctaskd.is_live,
    asynctaskd.known_version, asynctaskd.knows, asynctaskd.route_of, asynctaskd.search_tasks, asynctaskd.count_tasks,
    asynctaskd.pulse, asynctaskd.relatives, asynctaskd.percent_of, asynctaskd.count_desired_slots
    TO asynctaskd_viewer, asynctaskd_operator;

-- What runs with the owner's rights. All names in these functions and in what they call are qualified; so nothing is
-- looked for where somebody else may put something.
DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY '{
        enqueue, enqueue_written, schedule_by_enqueue,
        command, reprioritize, settle_request, withdraw, with_descendants, update_runtime_config,
        put_schedule, pause_schedule, resume_schedule, remove_schedule,
        run_schedule, note_audit, search_tasks, count_tasks, pulse, relatives, percent_of,
        overview, why, new_tasks, new_events, watch, count_desired_slots,
        ensure_finished_partition, detach_finished_partition, drop_detached
    }'::text[] LOOP
        EXECUTE format('ALTER ROUTINE asynctaskd.%I SECURITY DEFINER SET search_path = pg_catalog, pg_temp', one);
    END LOOP;
END $$;

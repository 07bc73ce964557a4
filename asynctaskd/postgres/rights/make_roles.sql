-- Make the roles that aren't there; let the current role act as their owner; and let who could enqueue go on.
--
-- Roles belong to the whole cluster: at this moment another database's migration may be making the same ones, and no
-- lock of a database's keeps it from that. Who comes second waits at the index, and finds them made.
DO $$
DECLARE
    -- Since PostgreSQL 16, whoever makes a role may give it away, but not act as it.
    acting constant text := CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END;
    one name;
BEGIN
    FOREACH one IN ARRAY '{asynctaskd_owner, asynctaskd_worker, asynctaskd_enqueuer, asynctaskd_operator,
                           asynctaskd_viewer}'::name[] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', one);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END LOOP;
    BEGIN
        IF NOT pg_has_role('asynctaskd_owner', acting) THEN
            GRANT asynctaskd_owner TO CURRENT_USER;
        END IF;
    EXCEPTION WHEN unique_violation THEN
        NULL;
    END;
END $$;

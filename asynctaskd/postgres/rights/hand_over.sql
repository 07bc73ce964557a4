-- Give the schema, and everything in it that isn't theirs yet, to the owner. What belongs to a table goes with it.
DO $$
DECLARE
    home oid := (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.migrations'::regclass);
    change text;
BEGIN
    FOR change IN
        SELECT format('SCHEMA %I', nspname) FROM pg_namespace WHERE oid = home AND nspowner <> 'asynctaskd_owner'::regrole
        UNION ALL
        SELECT format('%s %s', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE'
                                            ELSE 'TABLE' END, c.oid::regclass)
        FROM pg_class AS c
        WHERE relnamespace = home AND relkind IN ('r', 'p', 'v', 'S', 'c') AND relowner <> 'asynctaskd_owner'::regrole
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
                          AND deptype IN ('a', 'i') AND refobjsubid > 0)
        UNION ALL
        SELECT format('ROUTINE %s', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = home AND proowner <> 'asynctaskd_owner'::regrole
    LOOP
        EXECUTE format('ALTER %s OWNER TO asynctaskd_owner', change);
    END LOOP;
END $$;

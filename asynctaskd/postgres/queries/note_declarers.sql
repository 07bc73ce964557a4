-- Note that a process declares schedules, and forget those that have no worker any more.
-- $1 process, $2 schedules
UPDATE asynctaskd.schedules AS s
SET declared_by = ARRAY(SELECT DISTINCT process FROM asynctaskd.workers WHERE process = ANY (s.declared_by))
                  || $1::uuid
WHERE name = ANY (ARRAY(SELECT unnest($2::text[]) ORDER BY 1)) AND NOT ($1::uuid = ANY (declared_by))

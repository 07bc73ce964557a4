-- Create a schedule, or change one; returns its name.
-- $1 name, $2 whether there must be none yet (NULL: whichever), $3 task, $4 expression, $5 zone, $6 params (JSON),
-- $7 options (JSON), $8 missed, $9 missed_limit, $10 overlap; NULL leaves a value as it is
SELECT asynctaskd.put_schedule($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8, $9, $10)

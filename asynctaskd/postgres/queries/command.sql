-- Ask something of tasks; returns the id of the request.
-- $1 action, $2 selection (JSON), $3 reach descendants?, $4 why (for fail)
SELECT asynctaskd.command($1, $2::text::jsonb, $3, $4)

-- Take back the request to run tasks now, as far as no worker took them.
-- $1 request_id
SELECT asynctaskd.withdraw($1)

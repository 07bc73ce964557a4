-- Whom a version is for by now, how many seconds it is still to be tried, and what workers had done when that began.
-- $1 its identity
SELECT reach, extract(epoch FROM canary_until - asynctaskd.clock())::float8, canary_base::text
FROM asynctaskd.runtime_configs WHERE identity = $1

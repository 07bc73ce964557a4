-- Try to be the one who drops partitions, until the transaction ends: a row if it worked.
-- The transaction does nothing else, and may do so for longer than the role or the database allows.
SELECT set_config('idle_in_transaction_session_timeout', '5min', true)
WHERE pg_try_advisory_xact_lock(hashtext('asynctaskd.retention'), 0)

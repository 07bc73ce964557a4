-- Try to be the one who drops partitions, until the transaction ends: a row if it worked.
SELECT WHERE pg_try_advisory_xact_lock(hashtext('asynctaskd.retention'), 0)

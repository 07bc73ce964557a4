-- What became of a transaction: committed, aborted, in progress, or NULL where it is too long ago.
-- $1 its id, as text
SELECT pg_xact_status($1::text::xid8)

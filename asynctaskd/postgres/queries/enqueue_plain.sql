-- Enqueue one task without options; returns its id.
-- $1 name, $2 payload
SELECT asynctaskd.enqueue($1::text, $2::text::jsonb)

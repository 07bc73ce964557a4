-- Give a task that was made in this transaction its metadata.
-- $1 id, $2 metadata
UPDATE asynctaskd.tasks SET metadata = $2::text::jsonb WHERE id = $1

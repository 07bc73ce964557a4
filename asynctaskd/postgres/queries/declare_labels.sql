-- Add what an App declares of labels to the runtime configuration where nothing is said of it yet.
-- $1 field → label → value (JSON); returns the version that took, or NULL
SELECT asynctaskd.declare_labels($1::text::jsonb)

-- Add what an App declares of labels to the runtime configuration where nothing is said of it yet.
-- $1 field → label → value (JSON); returns whether that is settled: otherwise it has to be asked for again
SELECT asynctaskd.declare_labels($1::text::jsonb)

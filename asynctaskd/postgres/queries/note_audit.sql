-- Write down what somebody has changed by hand; returns the row's id.
-- $1 who, $2 from where, $3 action, $4 of what (JSON), $5 before (JSON), $6 after (JSON), $7 what came of it, in words
SELECT asynctaskd.note_audit($1, $2, $3, $4::text::jsonb, $5::text::jsonb, $6::text::jsonb, $7)

-- Create or change the schedule of a task's name; returns the id that its next task will have.
-- $1 name, $2 payload (JSON), $3 expression, $4 settings (JSON)
SELECT asynctaskd.schedule_by_enqueue($1::text, $2::text::jsonb, $3::text, $4::text::jsonb)

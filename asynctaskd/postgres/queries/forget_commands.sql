-- Forget commands, with their receipts, after a week.
DELETE FROM asynctaskd.commands WHERE requested_at < asynctaskd.clock() - interval '7 days'

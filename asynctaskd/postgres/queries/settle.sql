-- Obey what operators ask of tasks that don't run any more, and complete the receipts of all that is over.
SELECT asynctaskd.settle()

-- The fleet at this moment, as one document (JSON).
SELECT asynctaskd.overview()::text

-- The time by the database's clock.
SELECT asynctaskd.clock()

-- Keep the records that failure tasks still need from being dropped; returns how many.
SELECT asynctaskd.keep_failed()

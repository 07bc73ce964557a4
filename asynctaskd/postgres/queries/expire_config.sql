-- Take back what has expired of the runtime configuration; returns how many versions that took.
SELECT asynctaskd.expire_runtime_configs()

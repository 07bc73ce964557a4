-- Pin the plans of what follows in this transaction, as those of the daemon's own sessions are; returns what the
-- settings were.
SELECT current_setting('enable_seqscan'), current_setting('enable_bitmapscan'), current_setting('enable_nestloop'),
       current_setting('enable_mergejoin'), current_setting('jit'),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_nestloop', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('jit', 'off', true)

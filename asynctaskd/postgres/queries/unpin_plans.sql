-- Give the planner its settings back for the rest of this transaction.
-- $1 enable_seqscan, $2 enable_bitmapscan, $3 enable_nestloop, $4 enable_mergejoin, $5 jit
SELECT set_config('enable_seqscan', $1, true), set_config('enable_bitmapscan', $2, true),
       set_config('enable_nestloop', $3, true), set_config('enable_mergejoin', $4, true), set_config('jit', $5, true)

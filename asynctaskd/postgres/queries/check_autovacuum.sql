-- Whether the server cleans up by itself, and every how many seconds it looks.
SELECT current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean,
       (SELECT setting::integer FROM pg_settings WHERE name = 'autovacuum_naptime')

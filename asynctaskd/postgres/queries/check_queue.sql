-- Which share of the queue of notices is in use.
SELECT pg_notification_queue_usage()

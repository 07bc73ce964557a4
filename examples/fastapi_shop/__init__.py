"""A web shop whose requests enqueue tasks in their own transactions."""

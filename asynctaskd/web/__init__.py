"""WHO IS LOOKING? What a worker shows over HTTP, and an API for tasks."""

"""The programs that run as worker processes, one for each project."""

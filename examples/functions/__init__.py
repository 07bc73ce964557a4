"""Ordinary functions as tasks, and a test without a database."""

"""Definitions as Anchor writes them: a failure is a task of its own."""

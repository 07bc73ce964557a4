"""Calls of an object's methods, queued in a transaction: once for each token, and encrypted."""

"""Checks of what is in deploy/: `make check-deploy`; with `ARGS="docker prometheus"`, of these kinds alone.

Each kind of file has a module with `check(deploy)`, which yields a sentence for each thing that is wrong
below that folder, and raises `MissingToolError` where it can't look.
"""

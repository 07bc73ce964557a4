"""WHAT BECOMES OF A FILE?  From the tasks of tasks.yaml to a typed module."""

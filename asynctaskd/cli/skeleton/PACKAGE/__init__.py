"""Tasks, run by asynctaskd."""

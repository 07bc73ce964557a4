"""WHO RUNS IT ELSEWHERE? Handlers that hand a task on: to a service over HTTP, or to a program.

`document` is what both are given, `services` and `http` post it, `reply` reads the answer, `signature` proves
whom it comes from; `command` runs a program, `program` sees to it that nothing of that is left.
"""

"""WHAT IS A TASK? What users declare (name, parameters, options, handler) and what an enqueue may ask for.

`declarations` is how an App declares them, `registry` what it knows, `request` what is to be enqueued,
`options` and `payload` the rules that both obey. Nothing here does I/O, except that `loader` imports the
user's module, and that the handlers in `remote` hand tasks on.
"""

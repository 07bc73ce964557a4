"""How fast asynctaskd and its peers are, on one server, one after another: `python -m benchmarks`."""

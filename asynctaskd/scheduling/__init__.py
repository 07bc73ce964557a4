"""What next, and when? Pure decisions: no I/O, no event loop, no clock, no chance of their own.

The present moment and the source of random numbers are arguments, so the same state and the same
numbers always give the same answer.
"""

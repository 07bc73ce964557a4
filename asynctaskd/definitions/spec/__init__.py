"""WHAT DOES A FILE SAY?  tasks.yaml, read, checked and compared."""

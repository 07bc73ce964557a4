"""What is run on this repository: locking, auditing, telling what a release is made of."""

"""`python -m asynctaskd` is `asynctaskd`."""

from asynctaskd.cli import main

if __name__ == "__main__":
    main()

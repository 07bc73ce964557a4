"""What `check` finds out: small questions to the database, each answered by a Finding."""

from asynctaskd.cli.probes.examination import CHECKS, examine
from asynctaskd.cli.probes.finding import FAILURE, OK, REACHABLE, WARNING, Finding

__all__ = ["CHECKS", "FAILURE", "OK", "REACHABLE", "WARNING", "Finding", "examine"]

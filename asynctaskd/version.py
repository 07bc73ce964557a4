"""The version that is installed."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("asynctaskd")
except PackageNotFoundError:  # run from a source tree that was never installed
    VERSION = "0+unknown"

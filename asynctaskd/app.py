"""The App: what an application declares, and a worker of it inside another application."""

from __future__ import annotations

from asynctaskd.definitions.registry import Registry


class App(Registry):
    """The tasks of an application: declared by decorators, run by `asynctaskd run --app module:app`."""

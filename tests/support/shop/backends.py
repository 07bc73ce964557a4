"""Backends of Django's tasks: one that has nothing to do with asynctaskd, and one that is made of its own."""

from __future__ import annotations

from asynctaskd.django import TasksBackend


class OfSomebodyElse:
    pass


class MadeOfOurs(TasksBackend):
    pass

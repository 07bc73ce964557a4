"""The check of the image finds each fault that is planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Copy

DOCKERFILE = "docker/Dockerfile"


def test_what_is_shipped_is_well(copy: Copy) -> None:
    assert list(copy.findings("docker")) == []


@pytest.mark.parametrize(
    "old, new, found",
    [
        ("USER 65532:65532", "USER root", "USER must be a number"),
        ("USER 65532:65532", "USER 0", "USER must be a number"),
        ("USER 65532:65532\n", "", "USER must be a number"),
        ('ENTRYPOINT ["asynctaskd"]', "ENTRYPOINT asynctaskd", "ENTRYPOINT must be written"),
        ('CMD ["run"]', "CMD run", "CMD must be written"),
        ("/livez", "/metrics", "HEALTHCHECK must ask :9400/livez"),
        ("CMD [\"python\", \"-c\"", "CMD python -c [", "HEALTHCHECK must be written with a list"),
        ("EXPOSE 9400", "EXPOSE 80", "EXPOSE must be 9400"),
        ("COPY migrations", "COPY migration", "COPY of migration, which isn't there"),
        ("COPY migrations", "COPY tests", "COPY of tests, which .dockerignore leaves out"),
        ("WORKDIR /app", 'RUN ["pip", "install", "x"]', "the last stage must only copy"),
        ("python:3.13-slim-bookworm AS", "python AS", "hadolint: Dockerfile:5 DL3006"),
        ("EXPOSE 9400", "EXPOSE 9400\nEXPOZE 1", "hadolint: "),
    ],
)  # fmt: skip
def test_a_fault_is_found(assert_found: Callable[..., None], old: str, new: str, found: str) -> None:
    assert_found("docker", DOCKERFILE, old, new, found)


def test_a_configuration_that_the_worker_refuses_is_found(assert_found: Callable[..., None]) -> None:
    assert_found("docker", "docker/config.toml", "port = ", "prot = ", "prot")


def test_a_lock_that_lacks_a_requirement_is_found(assert_found: Callable[..., None]) -> None:
    assert_found("docker", "docker/requirements.txt", "asyncpg==", "asyncpg==0.1 # ", "lacks asyncpg>=")

"""The build of the image is gone through by `make check-deploy`; here as far as the first package."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.deploy.conftest import Copy


@pytest.mark.timeout(300)
def test_a_package_with_another_hash_is_found(copy: Copy) -> None:
    lock = copy.folder / "docker" / "build-requirements.txt"
    lock.write_text(re.sub(r"sha256:\w{64}", f"sha256:{'0' * 64}", lock.read_text()))
    [finding] = copy.findings("image")
    assert "--require-hashes" in finding
    assert "fails" in finding

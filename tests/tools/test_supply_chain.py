"""What a release is made of, and made by: locks, audit, distributions and workflows."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools import audit, lock

ROOT = lock.ROOT
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


# Locks


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))


@pytest.mark.parametrize("path", lock.LOCKS, ids=lambda path: path.name)
def test_each_locked_release_has_hashes_and_no_address_stands_beside_it(path: Path) -> None:
    text = path.read_text("utf8")
    entries = re.findall(r"^[A-Za-z0-9].*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
    names = re.findall(r"^[A-Za-z0-9].*", text, re.MULTILINE)
    assert len(entries) == len(names) > 5
    assert all(re.match(r"[A-Za-z0-9_.-]+==\S+", name) for name in names)
    assert not re.search(r"://|--index-url|--find-links", text)


def pins(path: Path) -> set[str]:
    return set(re.findall(r"^[A-Za-z0-9_.-]+==[^ ;]+", path.read_text("utf8"), re.MULTILINE))


@pytest.mark.parametrize("path", lock.LOCKS[1:], ids=lambda path: path.name)
def test_what_runs_is_what_it_was_developed_with(path: Path) -> None:
    assert pins(path) - pins(lock.DEV) == set()


@pytest.mark.parametrize(
    "section,change",
    [
        ("dependencies", ["left-pad"]),
        ("optional-dependencies", {"x": ["left-pad"]}),
        ("requires-python", "3"),
    ],
)
def test_a_dependency_that_is_not_locked_is_noticed(
    section: str, change: object, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = project()
    assert lock._check(changed) == 0
    changed["project"][section] = change
    assert lock._check(changed) == 1
    assert "constraints/dev.txt was made for other dependencies" in capsys.readouterr().out


# Audit


class Vulnerable(BaseHTTPRequestHandler):
    """A service in the manner of OSV that knows of one flaw, in attrs."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = {"vulns": [FLAW]} if asked["package"]["name"] == "attrs" else {}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


FLAW = {
    "id": "PYSEC-0000-1",
    "summary": "made up",
    "published": "2026-01-01T00:00:00Z",
    "affected": [
        {
            "package": {"name": "attrs", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999.0"}]}],
        }
    ],
}


@pytest.fixture
def service() -> Iterator[list[str]]:
    """The options that have pip-audit ask such a service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Vulnerable) as server:
        threading.Thread(target=server.serve_forever).start()
        yield [
            "--vulnerability-service",
            "osv",
            "--osv-url",
            f"http://127.0.0.1:{server.server_port}/v1/query",
        ]
        server.shutdown()


def locked(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """Have only these be locked, as they are."""
    path = folder / "dev.txt"
    path.write_text("\n".join(audit._entry_of(name) for name in names))
    monkeypatch.setattr(audit, "DEV", path)


def test_a_known_vulnerability_fails_the_audit(
    service: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locked(monkeypatch, tmp_path, "typer", "attrs")
    assert audit.main(service) == 1
    said = capsys.readouterr().out
    assert re.search(r"attrs \S+: PYSEC-0000-1, fixed in 9999\.0", said)
    assert "2 packages audited, 1 of them vulnerable" in said


def test_an_audit_that_finds_nothing_says_of_how_many(
    service: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    locked(monkeypatch, tmp_path, "typer", "rich")
    assert audit.main(service) == 0
    assert capsys.readouterr().out == "2 packages audited, 0 of them vulnerable\n"


def test_a_service_that_cannot_be_reached_is_said_and_fails_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert audit.main(["--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:1/v1/query"]) == 0
    assert capsys.readouterr().out.startswith(
        "NOT AUDITED: the service that knows vulnerabilities doesn't answer"
    )


# Distributions


def built(tree: Path, out: Path, **environ: str) -> dict[str, str]:
    """The hashes of what a tree is built to, by name."""
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(tree)],
        check=True,
        capture_output=True,
        env={**os.environ, **environ},
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def copied(folder: Path) -> Path:
    """What distributions are made of, in another place."""
    sources = [*project()["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "/pyproject.toml"]
    for name in [*sources, "/README.md", "/LICENSE", "/.gitignore"]:
        source, target = ROOT / name[1:], folder / name[1:]
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return folder


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and a wheel."""
    out = tmp_path_factory.mktemp("first")
    built(copied(tmp_path_factory.mktemp("tree")), out, SOURCE_DATE_EPOCH="1700000000")
    return out


def test_the_same_tree_gives_the_same_distributions(distributions: Path, tmp_path: Path) -> None:
    (tree := tmp_path / "elsewhere").mkdir()
    for path in copied(tree).rglob("*.py"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    first = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in distributions.iterdir()}
    assert len(first) == 2
    assert built(tree, tmp_path / "out", SOURCE_DATE_EPOCH="1700000000") == first


def test_the_sdist_holds_what_operators_and_packagers_need(distributions: Path) -> None:
    [path] = distributions.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    folders = {"asynctaskd", "deploy", "docs", "examples", "migrations", "tests", "tools"}
    files = {"constraints/runtime.txt", "SECURITY.md", "Makefile", "config.example.toml"}
    assert folders <= {name.partition("/")[0] for name in names}
    assert files <= names


def test_the_wheel_holds_the_package_with_its_migrations_and_nothing_else(distributions: Path) -> None:
    [path] = distributions.glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    assert "asynctaskd/migrations/0001_tasks.sql" in names
    assert "asynctaskd/postgres/queries/claim.sql" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"asynctaskd"}


# Workflows


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_named_by_the_hash_of_its_commit(path: Path) -> None:
    used = re.findall(r"uses: *(.+)", path.read_text("utf8"))
    assert used
    pinned = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")
    assert [one for one in used if not pinned.fullmatch(one)] == []


def test_only_jobs_that_publish_may_write() -> None:
    for path in WORKFLOWS:
        text = path.read_text("utf8")
        head, _, jobs = text.partition("\njobs:\n")
        assert "permissions:\n  contents: read\n" in head, path.name
        assert set(re.findall(r"([\w-]+): write", jobs)) <= {"id-token", "contents"}, path.name

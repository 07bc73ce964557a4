"""`asynctaskd dashboard`, and the dashboard of a worker."""

from __future__ import annotations

import re
import signal
import socket
from urllib.request import Request, urlopen

SECRET = "0123456789abcdef"


def page(url: str, token: str | None = None) -> str:
    headers = {"Accept": "text/html"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    with urlopen(Request(url, headers=headers), timeout=30) as answer:
        return answer.read().decode()


def test_it_is_served_until_it_is_told_to_stop(start, database):
    process = start("dashboard", "--port=0", "--database", database.dsn)
    line = process.await_line("dashboard at")
    [url] = re.findall(r"http://127\.0\.0\.1:\d+/", line)
    assert "read only" in line
    assert "No worker is live" in page(url)
    process.tell(signal.SIGTERM)
    process.exit_code()


def test_an_address_that_others_reach_needs_tokens(bare, tmp_path):
    refused = bare.run("dashboard", "--host", "0.0.0.0", "--database", "postgresql://nowhere/")
    assert refused.exit_code == 78
    assert "could be reached by anybody" in refused.stderr
    assert "--token-file" in refused.stderr


def test_a_password_in_its_command_line_is_warned_of(bare):
    told = bare.run("dashboard", "--host", "0.0.0.0", "--database", "postgresql://shop:hunter2@nowhere/")
    assert "can read the password in --database" in told.stderr
    assert "hunter2" not in told.stderr


def test_with_tokens_it_answers_to_who_has_one(start, database, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"write ada {SECRET}\n")
    tokens.chmod(0o644)
    process = start(
        "dashboard", "--host=0.0.0.0", "--port=0", "--write", "--token-file", str(tokens),
        "--database", database.dsn,
    )  # fmt: skip
    assert "dashboard.token_file (mode 0644): chmod" in process.await_line(
        "everybody on this machine can read"
    )
    [port] = re.findall(r":(\d+)/", process.await_line("dashboard at"))
    assert "Log in" in page(f"http://127.0.0.1:{port}/tasks")
    assert "Log in" not in page(f"http://127.0.0.1:{port}/tasks", SECRET)
    tokens.write_text("")
    while not any("holds no token" in line for line in process.stderr):
        assert "Log in" not in page(f"http://127.0.0.1:{port}/tasks", SECRET)
    assert SECRET not in " ".join(process.stderr + process.stdout)


def test_a_port_that_is_taken_is_told(bare, database):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = bare.run("dashboard", f"--port={port}", "--database", database.dsn)
    assert refused.exit_code == 78
    assert f"can't answer at 127.0.0.1, port {port}" in refused.stderr


def test_without_its_extra_it_says_what_to_install(bare, monkeypatch):
    monkeypatch.setattr("asynctaskd.definitions.extras.find_spec", lambda name: None)
    refused = bare.run("dashboard", "--database", "postgresql://nowhere/")
    assert refused.exit_code == 78
    assert "pip install 'asynctaskd[dashboard]'" in refused.stderr


def test_a_worker_serves_it_if_that_is_wanted(start, database):
    process = start(
        "run", "--app", "shop:app", "--database", database.dsn,
        ASYNCTASKD_HTTP_PORT="0", ASYNCTASKD_DASHBOARD_MODE="read", ASYNCTASKD_LOG_FORMAT="json",
    )  # fmt: skip
    [port] = re.findall(r'"port": ?(\d+)', process.await_line("http.serving"))
    process.await_line("worker.started")
    assert "<h1>Workers</h1>" in page(f"http://127.0.0.1:{port}/dashboard/workers")
    process.tell(signal.SIGTERM)
    assert process.exit_code() == 0


def test_a_worker_that_anybody_could_reach_doesnt_start_with_it(start):
    process = start(
        "run", "--app", "shop:app", "--database", "postgresql://nowhere/",
        ASYNCTASKD_HTTP_HOST="0.0.0.0", ASYNCTASKD_HTTP_PORT="0", ASYNCTASKD_DASHBOARD_MODE="write",
    )  # fmt: skip
    process.await_line("could be reached by anybody")
    assert process.exit_code() == 78


def test_a_worker_needs_a_port_for_it(bare):
    refused = bare.run(
        "run",
        "--app",
        "shop:app",
        "--database",
        "postgresql://nowhere/",
        env={"ASYNCTASKD_DASHBOARD_MODE": "read"},
    )
    assert refused.exit_code == 78
    assert "dashboard.mode read needs http.port" in refused.stderr

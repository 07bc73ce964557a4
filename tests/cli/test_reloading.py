"""A configuration that is read again."""

from __future__ import annotations

from asynctaskd.cli.reloading import Reloading
from asynctaskd.config import load_config
from asynctaskd.telemetry.events import attach

WHOLE = {"database.url": "postgresql://localhost/shop", "worker.concurrency": 30}


def test_a_file_that_was_emptied_changes_nothing_and_is_told():
    told = []
    detach = attach(lambda event, facts: told.append((event, facts["error"])), "config_file.refused")
    before = load_config(None, {}, WHOLE)
    reloading = Reloading(lambda: load_config(None, {}, {}), before)
    assert reloading.reload() is before
    detach()
    [(_, error)] = told
    assert error.startswith("database.url is not set")


def test_what_can_change_is_taken_on():
    before = load_config(None, {}, WHOLE)
    reloading = Reloading(lambda: load_config(None, {}, WHOLE | {"worker.concurrency": 40}), before)
    assert reloading.reload().worker.concurrency == 40


def test_a_secret_file_that_everybody_may_read_is_warned_of_once(tmp_path):
    path = tmp_path / "url"
    path.write_text("postgresql://shop@db/shop")
    path.chmod(0o644)
    config = load_config(None, {}, {"database.url": f"file:{path}"})
    told = []
    detach = attach(lambda event, facts: told.append((facts["key"], facts["mode"])), "file.exposed")
    reloading = Reloading(lambda: config, config)
    reloading.warn_of_exposed()
    reloading.reload()
    assert told == [("database.url", "0644")]
    path.chmod(0o440)
    reloading.reload()
    path.chmod(0o444)
    reloading.reload()
    detach()
    assert told == [("database.url", "0644"), ("database.url", "0444")]

from __future__ import annotations

import itertools
import os
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import ValidationError

from asynctaskd.config import SETTINGS, DaemonConfig, RuntimeConfig, load_config, render_example, variables_of
from asynctaskd.config.exposure import exposed_files
from asynctaskd.errors import ConfigError, InvalidInputError

ROOT = Path(__file__).parent.parent


@pytest.fixture
def file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "asynctaskd.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems_of(path=None, environ=None, overrides=None) -> str:
    with pytest.raises(ConfigError) as refused:
        load_config(path, environ or {}, overrides or {})
    return str(refused.value)


def test_without_anything_given_the_defaults_apply():
    config = load_config(None, {}, {})
    assert config == DaemonConfig()
    assert config.database.url is None
    assert config.database.schema_name == "asynctaskd"
    worker = config.worker
    assert (worker.enabled, worker.id, worker.concurrency, worker.labels) == (True, None, 10, ())
    assert worker.max_strict_percentage == 100
    assert (worker.poll_interval, worker.renew_interval) == (timedelta(seconds=1), timedelta(seconds=5))
    assert (worker.lease, worker.grace) == (timedelta(seconds=30), timedelta(seconds=30))
    assert config.http.port is None


@pytest.mark.parametrize("in_file,in_environment,in_flags", list(itertools.product([False, True], repeat=3)))
def test_flags_win_over_the_environment_over_the_file_over_the_defaults(
    file, in_file, in_environment, in_flags
):
    path = file("[worker]\nconcurrency = 1\n" if in_file else "")
    environ = {"ASYNCTASKD_WORKER_CONCURRENCY": "2"} if in_environment else {}
    config = load_config(path, environ, {"worker.concurrency": 3 if in_flags else None})
    expected = 3 if in_flags else 2 if in_environment else 1 if in_file else 10
    assert config.worker.concurrency == expected


def test_a_flag_that_is_not_given_never_beats_the_file(file):
    path = file('[worker]\nconcurrency = 4\nlabels = ["a"]\n[database]\nurl = "embedded"\n')
    config = load_config(path, {}, dict.fromkeys(SETTINGS))
    assert (config.worker.concurrency, config.worker.labels) == (4, ("a",))
    assert config.database.require_url() == "embedded"


def test_the_layers_are_merged_key_by_key(file):
    path = file("[worker]\nconcurrency = 4\npoll_interval = '2s'\n")
    config = load_config(path, {"ASYNCTASKD_WORKER_GRACE": "0s"}, {"worker.concurrency": 5})
    assert config.worker.concurrency == 5
    assert config.worker.poll_interval == timedelta(seconds=2)
    assert config.worker.grace == timedelta(0)


@pytest.mark.parametrize(
    "variable,text,key,value",
    [
        ("ASYNCTASKD_DATABASE_SCHEMA", "tasks", "database.schema_name", "tasks"),
        ("ASYNCTASKD_DATABASE_POOL_SIZE", "3", "database.pool_size", 3),
        ("ASYNCTASKD_DATABASE_LISTEN", "OFF", "database.listen", "off"),
        ("ASYNCTASKD_WORKER_ENABLED", "no", "worker.enabled", False),
        ("ASYNCTASKD_WORKER_ENABLED", "1", "worker.enabled", True),
        ("ASYNCTASKD_WORKER_ID", str(UUID(int=1)), "worker.id", UUID(int=1)),
        ("ASYNCTASKD_WORKER_LABELS", "mail, gpu,,mail", "worker.labels", ("gpu", "mail")),
        ("ASYNCTASKD_WORKER_LEASE", "1h30m", "worker.lease", timedelta(minutes=90)),
        ("ASYNCTASKD_WORKER_MAX_STRICT_PERCENTAGE", "0", "worker.max_strict_percentage", 0),
        ("ASYNCTASKD_LOG_LEVEL", "WARNING", "log.level", "warning"),
    ],
)
def test_every_kind_of_value_can_be_written_in_a_variable(variable, text, key, value):
    section, name = key.split(".")
    assert getattr(getattr(load_config(None, {variable: text}, {}), section), name) == value


def test_an_empty_variable_counts_as_not_set_and_an_empty_flag_empties_a_list(file):
    path = file('[worker]\nlabels = ["a"]\n')
    environ = {"ASYNCTASKD_WORKER_LABELS": "", "ASYNCTASKD_WORKER_ID": " "}
    assert load_config(path, environ, {}).worker.labels == ("a",)
    assert load_config(path, environ, {"worker.labels": ""}).worker.labels == ()


def test_concurrency_cpu_is_the_number_of_processors_this_process_may_use():
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert load_config(None, {"ASYNCTASKD_WORKER_CONCURRENCY": "cpu"}, {}).worker.concurrency == usable


def test_an_unknown_key_is_refused_with_the_nearest_known_one(file):
    path = file("[worker]\nconcurency = 5\n")
    assert problems_of(path) == f"unknown key worker.concurency in {path}; did you mean worker.concurrency?"


@pytest.mark.parametrize(
    "text,expected",
    [
        ("[wroker]\nlease = '1m'\n", "unknown section [wroker] in {}; did you mean [worker]?"),
        ("concurrency = 5\n", "unknown key concurrency in {}; did you mean worker.concurrency?"),
        ("[database]\nlease = '1m'\n", "unknown key database.lease in {}; did you mean worker.lease?"),
        ("[log]\nxyzzy = 1\n", "unknown key log.xyzzy in {}; known keys are log.level, log.format"),
        ("worker = 5\n", "worker in {} must be a section, [worker]"),
        ("[[worker]]\nlease = '1m'\n", "worker in {} must be a section, [worker]"),
    ],
)
def test_what_stands_in_the_wrong_place_is_refused_with_the_right_one(file, text, expected):
    path = file(text)
    assert problems_of(path) == expected.format(path)


def test_an_unknown_variable_is_refused_with_the_nearest_known_one():
    assert problems_of(environ={"ASYNCTASKD_WORKER_CONCURENCY": "5"}) == (
        "unknown variable ASYNCTASKD_WORKER_CONCURENCY; did you mean ASYNCTASKD_WORKER_CONCURRENCY?"
    )


def test_variables_of_the_command_line_the_tests_and_kubernetes_are_left_alone():
    environ = {
        "ASYNCTASKD_APP": "shop:app",
        "ASYNCTASKD_TASK_FILE": "/tmp/asynctaskd-x/task.json",
        "ASYNCTASKD_CONFIG": "/etc/asynctaskd.toml",
        "ASYNCTASKD_TEST_DATABASE": "x",
        "ASYNCTASKD_SERVICE_HOST": "10.0.0.1",
        "ASYNCTASKD_METRICS_SERVICE_PORT_HTTP": "80",
        "ASYNCTASKD_PORT": "tcp://10.0.0.1:80",
        "ASYNCTASKD_PORT_80_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }
    assert load_config(None, environ, {}) == DaemonConfig()


def test_a_port_that_kubernetes_did_not_set_is_an_unknown_variable():
    assert "unknown variable ASYNCTASKD_DATABASE_PORT" in problems_of(
        environ={"ASYNCTASKD_DATABASE_PORT": "5432"}
    )


@pytest.mark.parametrize(
    "key,value,expected",
    [
        ("worker.concurrency", '"10"', "an integer from 1 to 100000, or \"cpu\", got '10'"),
        ("worker.concurrency", "0", 'an integer from 1 to 100000, or "cpu", got 0'),
        ("worker.concurrency", "1.5", 'an integer from 1 to 100000, or "cpu", got 1.5'),
        ("worker.concurrency", "true", 'an integer from 1 to 100000, or "cpu", got True'),
        ("worker.enabled", '"yes"', "true or false, got 'yes'"),
        ("worker.poll_interval", "1", "a duration of more than 0s and at most 30d"),
        ("worker.poll_interval", '"0s"', "a duration of more than 0s and at most 30d"),
        ("worker.lease", '"31d"', "a duration of more than 0s and at most 30d"),
        ("worker.grace", '"-1s"', "a duration of at most 30d"),
        ("worker.id", '"seven"', "a UUID, got 'seven'"),
        ("worker.labels", '"mail"', "a list of labels"),
        ("worker.labels", '["a b"]', "a list of labels"),
        ("worker.labels", '["worker:1"]', 'none beginning with "worker:"'),
        ("worker.max_strict_percentage", "101", "an integer from 0 to 100, got 101"),
        ("database.schema", '"Tasks"', "1 to 44 characters"),
        ("database.schema", '"pg_tasks"', "1 to 44 characters"),
        ("database.schema", '"tasks\\n"', "1 to 44 characters"),
        ("database.listen", '"maybe"', "auto, on or off, got 'maybe'"),
        ("log.level", '"loud"', "debug, info, warning, error or critical, got 'loud'"),
    ],
)
def test_a_wrong_value_is_refused_with_file_key_expectation_and_value(file, key, value, expected):
    section, name = key.split(".")
    path = file(f"[{section}]\n{name} = {value}\n")
    message = problems_of(path)
    assert message.startswith(f"{key} in {path} must be ")
    assert expected in message


def test_an_ipv6_address_may_stand_in_brackets(file):
    assert load_config(file('[http]\nhost = "[::1]"\n'), {}, {}).http.host == "::1"
    assert "http.host" in problems_of(file('[http]\nhost = "[]"\n'))


@pytest.mark.parametrize(
    ("mode", "is_exposed"), [(0o400, False), (0o440, False), (0o640, False), (0o444, True), (0o604, True)]
)
def test_a_secret_file_is_exposed_where_everybody_may_read_it(tmp_path, mode, is_exposed):
    url, tokens = tmp_path / "url", tmp_path / "tokens"
    for path in (url, tokens):
        path.write_text("")
        path.chmod(mode)
    sections = {
        "database": {"url": f"file:{url}", "listen_url": f"file:{tmp_path}/none"},
        "dashboard": {"token_file": tokens},
    }
    exposed = [one.key for one in exposed_files(DaemonConfig.model_validate(sections))]
    assert exposed == (["database.url", "dashboard.token_file"] if is_exposed else [])


def test_of_a_link_the_file_counts_that_it_leads_to(tmp_path):
    """As Kubernetes mounts a secret: url is a link to ..data/url, and ..data one to a directory."""
    there = tmp_path / "..2026"
    there.mkdir()
    (there / "url").write_text("")
    (tmp_path / "..data").symlink_to(there)
    (tmp_path / "url").symlink_to("..data/url")
    config = DaemonConfig.model_validate({"database": {"url": f"file:{tmp_path}/url"}})
    (there / "url").chmod(0o644)
    assert [str(one) for one in exposed_files(config)] == [f"{tmp_path}/url of database.url (mode 0644)"]
    (there / "url").chmod(0o440)
    assert exposed_files(config) == []


def test_a_wrong_value_is_named_with_the_variable_or_the_flag_it_came_from():
    assert "worker.lease from ASYNCTASKD_WORKER_LEASE must" in problems_of(
        environ={"ASYNCTASKD_WORKER_LEASE": "soon"}
    )
    assert "database.url from --database must" in problems_of(overrides={"database.url": "mysql://h"})
    assert "dashboard.hosts from --allow-host must" in problems_of(
        overrides={"dashboard.hosts": ["http://x"]}
    )
    assert "worker.poll_interval from --poll-interval must" in problems_of(
        overrides={"worker.poll_interval": "0s"}
    )


def test_several_problems_are_reported_together(file):
    path = file("[worker]\nconcurency = 5\nlease = 30\n")
    lines = problems_of(path, {"ASYNCTASKD_LOGLEVEL": "x"}, {"log.level": "loud"}).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("unknown key worker.concurency in ")
    assert lines[1].startswith("unknown variable ASYNCTASKD_LOGLEVEL; ")
    assert lines[2].startswith(f"worker.lease in {path} must be ")
    assert lines[3].startswith("log.level from --log-level must be ")


def test_a_list_with_two_bad_elements_is_one_problem(file):
    assert len(problems_of(file("[worker]\nlabels = [1, 2]\n")).splitlines()) == 1


def test_the_lease_must_outlive_three_renewals():
    expected = "worker.lease must be at least 3 × worker.renew_interval (15s), got 10s"
    assert problems_of(overrides={"worker.lease": "10s"}) == expected
    assert load_config(None, {}, {"worker.lease": "15s"}).worker.lease == timedelta(seconds=15)


def test_broken_toml_is_refused_with_file_and_line(file):
    path = file("[worker]\nlease = \n")
    message = problems_of(path)
    assert str(path) in message
    assert "line 2" in message


def test_a_missing_or_unreadable_file_is_refused_by_name(tmp_path):
    missing = tmp_path / "none.toml"
    assert problems_of(missing) == f"there is no configuration file {missing}"
    assert problems_of(tmp_path) == f"the configuration file {tmp_path} can't be read: Is a directory"


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "asynctaskd.toml"
    path.write_bytes(b"[worker]\n\xff")
    assert "isn't UTF-8 text" in problems_of(path)


def test_an_unset_url_is_told_with_the_ways_to_set_it():
    with pytest.raises(ConfigError, match=r"--database .* ASYNCTASKD_DATABASE_URL, .* \[database\]"):
        DaemonConfig().database.require_url()


def test_no_password_appears_in_a_repr():
    config = load_config(None, {"ASYNCTASKD_DATABASE_URL": "postgresql://u:hunter2@h/d"}, {})
    assert "hunter2" not in f"{config!r} {config} {config.model_dump()} {config.model_dump_json()}"
    assert config.database.require_url() == "postgresql://u:hunter2@h/d"


@pytest.mark.parametrize(
    "text",
    [
        '[database]\nurl = "u:hunter2@h/d"\n',
        '[database]\nurl = ["postgresql://u:hunter2@h/d"]\n',
        '[database]\nlisten_url = "mysql://u:hunter2@h/d"\n',
        '[database]\nurll = "postgresql://u:hunter2@h/d"\n',
        '[database]\nschema = "postgresql://u:hunter2@h/d"\n',
        'database = "postgresql://u:hunter2@h/d"\n',
        '[database]\nurl = "postgresql://u:hunter2@h/d"\npool_size = 0\n',
        '[database]\nurl = "postgresql://u:hunter2@h/d"\nurl = 1\n',
    ],
)
def test_no_password_appears_in_an_error(file, text):
    with pytest.raises(ConfigError) as refused:
        load_config(file(text), {"ASYNCTASKD_DATABASE_LISTEN_URL": "u:hunter2@h"}, {})
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_the_models_are_frozen():
    with pytest.raises(ValidationError):
        DaemonConfig().worker.concurrency = 3  # type: ignore[misc]


def test_config_example_toml_is_what_the_model_says():
    assert (ROOT / "config.example.toml").read_text(encoding="utf-8") == render_example()


def test_the_example_loads_to_the_defaults_and_shows_every_key(file):
    example = render_example()
    assert load_config(file(example), {}, {}) == DaemonConfig()
    for setting in SETTINGS.values():
        assert f"\n{setting.name} = " in example or f"\n# {setting.name} = " in example
        assert setting.variable in example


def test_the_example_loads_with_every_key_uncommented(file):
    text = render_example()
    for setting in SETTINGS.values():
        text = text.replace(f"\n# {setting.name} = ", f"\n{setting.name} = ")
    assert load_config(file(text), {}, {}).database.require_url().startswith("postgresql://")


def test_every_key_says_what_it_is_and_what_it_takes():
    assert all(setting.description and setting.expects for setting in SETTINGS.values())


def test_a_runtime_configuration_overrides_the_workers_share_only_where_it_sets_one():
    assert RuntimeConfig().effective_strict_percentage(40) == 40
    assert RuntimeConfig(max_strict_percentage=0).effective_strict_percentage(40) == 0


def test_a_change_keeps_what_it_leaves_out_and_replaces_whole_mappings():
    first = RuntimeConfig().updated({"weights": {"a": 2, "b": 1}, "default_weight": 3})
    second = first.updated({"weights": {"c": 5}})
    assert (second.version, second.default_weight, second.weights) == (2, 3, {"c": 5})


@pytest.mark.parametrize(
    "changes,message",
    [
        ({}, "must name at least one field"),
        ({"wieghts": {}}, "did you mean weights?"),
        ({"version": 5}, "unknown runtime configuration field version"),
        ({"max_strict_percentage": 101}, "max_strict_percentage must be at most 100, got 101"),
        ({"max_strict_percentage": -1}, "max_strict_percentage must be at least 0, got -1"),
        ({"max_strict_percentage": True}, "max_strict_percentage must be an integer, got True"),
        ({"default_weight": 0}, "default_weight must be at least 1, got 0"),
        ({"default_weight": None}, "default_weight must be an integer, got None"),
        ({"weights": {"mail": 0}}, "weights[mail] must be at least 1, got 0"),
        ({"weights": {"mail": "5"}}, "weights[mail] must be an integer, got '5'"),
        ({"weights": {"mail": 2**31}}, "weights[mail] must be at most"),
        ({"weights": ["mail"]}, "weights must map labels to integers"),
        ({"weights": {"a b": 1}}, "weights must name"),
        ({"weights": {"default": 1}}, "weights can't name the label default"),
        ({"limits": {"__default__": 1}}, "limits can't name the label __default__"),
        ({"limits": {"worker:1": 1}}, "limits can't name the label worker:1"),
        ({"limits": {"mail": -1}}, "limits[mail] must be at least 0, got -1"),
        ({"paused_labels": "mail"}, "paused_labels must be a list"),
        ({"paused_names": [""]}, "paused_names must name"),
    ],
)
def test_a_change_that_breaks_a_rule_is_refused_with_its_field(changes, message):
    with pytest.raises(InvalidInputError) as refused:
        RuntimeConfig().updated(changes)
    assert message in str(refused.value)


def test_a_configuration_handed_on_in_the_environment_is_the_same(tmp_path):
    path = tmp_path / "asynctaskd.toml"
    path.write_text(
        '[database]\nurl = "postgresql://me:secret@db/shop"\nschema = "shop"\nlisten = "off"\n'
        '[worker]\nlabels = ["gpu", "eu"]\nlease = "1m30s"\nenabled = false\n[log]\nlevel = "debug"\n'
    )
    config = load_config(path, {}, {"worker.concurrency": 3})
    assert load_config(None, variables_of(config, {}), {}) == config
    changed = load_config(None, variables_of(config, {"worker.concurrency": "1", "worker.labels": ""}), {})
    assert (changed.worker.concurrency, changed.worker.labels) == (1, ())


def test_a_url_may_be_kept_in_a_file_that_a_variable_names(tmp_path):
    config = load_config(None, {"ASYNCTASKD_DATABASE_URL_FILE": f"{tmp_path}/url"}, {})
    assert config.database.require_url() == f"file:{tmp_path}/url"
    with pytest.raises(
        ConfigError, match="ASYNCTASKD_DATABASE_URL and ASYNCTASKD_DATABASE_URL_FILE exclude each other"
    ):
        load_config(
            None,
            {"ASYNCTASKD_DATABASE_URL": "postgresql://db/a", "ASYNCTASKD_DATABASE_URL_FILE": "/run/url"},
            {},
        )
    with pytest.raises(ConfigError, match="unknown variable ASYNCTASKD_WORKER_CONCURRENCY_FILE"):
        load_config(None, {"ASYNCTASKD_WORKER_CONCURRENCY_FILE": "/run/n"}, {})

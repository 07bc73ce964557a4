"""What tasks.yaml may say, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from asynctaskd import Cron, RetryPolicy
from asynctaskd.definitions.spec.spec import Spec, TaskSpec
from asynctaskd.definitions.spec.tasks import load_spec

Load = Callable[[str], Spec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Reads a file of that text."""

    def loaded(text: str) -> Spec:
        path = tmp_path / "tasks.yaml"
        path.write_text(dedent(text), "utf8")
        return load_spec(path)

    return loaded


@pytest.fixture
def one(load: Load) -> Callable[[str], TaskSpec]:
    """Reads a file of one task `x` with these keys besides, without any warning."""

    def loaded(keys: str) -> TaskSpec:
        spec = load("tasks:\n  - name: x\n" + "".join(f"    {line}\n" for line in dedent(keys).splitlines()))
        assert spec.warnings == []
        [task] = spec.tasks
        return task

    return loaded


@pytest.fixture
def schema(one) -> Callable[[str], Mapping[str, Any]]:
    """The schema of a property that is written so."""
    return lambda text: one(f"parameters:\n  type: object\n  properties:\n    p: {text}\n").parameters[
        "properties"
    ]["p"]


# The worked examples of the systems whose files these are


ANCLAX = """
    tasks:
      - name: SendEmail
        description: "Mails one user"
        parameters:
          type: object
          required: [userId, templateId]
          properties:
            userId: {type: integer, format: int32}
            templateId: {type: string}
            variables: {type: object}
        retryPolicy: {interval: 5m, maxAttempts: -1}
      - name: ProcessDailyReports
        cronjob:
          cronExpression: "0 0 1 * * *"  # at one
        parameters:
          type: object
          required: [date]
          properties:
            date: {type: string, format: date}
        retryPolicy: {interval: 1h, maxAttempts: -1}
      - name: ProcessOrder
        parameters:
          type: object
          required: [orderId]
          properties:
            orderId: {type: integer, format: int32}
        retryPolicy:
          interval: "1m,2m,4m,8m"
          maxAttempts: 5
        events:
          - onFailed
        timeout: 10m
      - name: SendNotification
        parameters:
          type: object
          required: [userId, message]
          properties:
            userId: {type: integer, format: int32}
            message: {type: string, description: What to tell}
            priority: {type: string, enum: [low, medium, high]}
        events: [onFailed]
      - name: deleteOpaqueKey
        priority: "INF"
        labels: [keys]
        tags: [security]
        delay: 5s
        parameters:
          type: object
          required: [keyID]
          properties:
            keyID: {type: integer, format: int64}
        retryPolicy: {interval: 30m, maxAttempts: -1}
        events: [onFailed]
"""

ANCHOR = """
    tasks:
      - name: deleteOpaqueKey
        parameters:
          type: object
          required: [keyID]
          properties:
            keyID: {type: integer, format: int64}
        retryPolicy:
          interval: 30m
          always_retry_on_failure: true
        events:
          onFailed: onDeleteOpaqueKeyFailed
      - name: onDeleteOpaqueKeyFailed
        retryPolicy:
          interval: 30m
          always_retry_on_failure: true
          max_retries: 3
      - name: SendNotification
        retryPolicy: {interval: 5m, always_retry_on_failure: false}
        events: {onFailed: EscalateFailedNotification}
      - name: EscalateFailedNotification
        retryPolicy: {interval: 5m, max_retries: 2}
        parameters:
          type: object
          required: [taskID, level]
          properties:
            taskID: {type: integer, format: int32}
            level: {type: string, default: admin}
"""


def test_the_examples_of_anclax_are_read(load: Load):
    spec = load(ANCLAX)
    tasks = {task.name: task for task in spec.tasks}
    assert list(tasks) == [
        "SendEmail", "ProcessDailyReports", "ProcessOrder", "SendNotification", "deleteOpaqueKey",
    ]  # fmt: skip
    assert [task.has_hook for task in spec.tasks] == [False, False, True, True, True]
    assert tasks["SendEmail"].description == "Mails one user"
    assert tasks["SendEmail"].options == {"retry": RetryPolicy("5m", max_attempts=-1)}
    assert tasks["ProcessDailyReports"].options["cron"] == Cron("0 0 1 * * *")
    assert tasks["ProcessOrder"].options == {
        "timeout": "10m",
        "retry": RetryPolicy("1m,2m,4m,8m", max_attempts=5),
    }
    assert tasks["deleteOpaqueKey"].options == {
        "priority": 2_147_483_647,
        "labels": ["keys"],
        "tags": ["security"],
        "delay": "5s",
        "retry": RetryPolicy("30m", max_attempts=-1),
    }
    assert spec.warnings == []


def test_the_examples_of_anchor_are_read(load: Load):
    spec = load(ANCHOR)
    first, second, third, fourth = spec.tasks
    assert first.options == {"retry": RetryPolicy("30m", max_attempts=-1)}
    assert (first.on_failed, first.has_hook) == ("onDeleteOpaqueKeyFailed", False)
    assert second.options == {"retry": RetryPolicy("30m", max_attempts=4)}
    assert third.options == {"retry": RetryPolicy("5m", max_attempts=1)}
    assert fourth.options == {"retry": RetryPolicy("5m", max_attempts=3)}
    assert third.parameters is None


def test_a_failure_task_without_parameters_takes_the_id_of_64_bits(load: Load):
    task = load(ANCHOR).tasks[1]
    assert task.parameters is not None
    assert task.parameters["required"] == ["taskID"]
    assert task.parameters["properties"]["taskID"]["format"] == "int64"


def test_an_id_of_32_bits_is_widened_with_a_warning(load: Load):
    spec = load(ANCHOR)
    assert spec.tasks[3].parameters["properties"]["taskID"]["format"] == "int64"
    assert [warning.rpartition("tasks.yaml:")[2] for warning in spec.warnings] == [
        "28:17: taskID is int64 here: ids have 64 bits"
    ]


# Options


def test_every_key_may_be_written_in_camel_case_and_in_snake_case(load: Load):
    snake, camel = load(
        """
        tasks:
          - name: a
            retry_policy: {interval: 1m, max_attempts: 3}
            cronjob: {cron_expression: "@daily"}
            serial_key: k
            unique_until: finished
            events: [on_failed]
          - name: b
            retryPolicy: {interval: 1m, maxAttempts: 3}
            cronjob: {cronExpression: "@daily"}
            serialKey: k
            uniqueUntil: finished
            events: [onFailed]
        """
    ).tasks
    assert snake.options == camel.options
    assert snake.has_hook is camel.has_hook is True
    assert snake.options["serial_key"] == "k"


def test_all_options_of_a_definition_can_be_given(one):
    task = one(
        """
        timeout: 1h30m
        delay: 0s
        deadline: 2h
        keep: 0
        labels: [a, b]
        tags: [t]
        priority: 7
        weight: 3
        """
    )
    assert task.options == {
        "timeout": "1h30m",
        "delay": "0s",
        "deadline": "2h",
        "keep": 0,
        "labels": ["a", "b"],
        "tags": ["t"],
        "priority": 7,
        "weight": 3,
    }


@pytest.mark.parametrize(
    "written,attempts",
    [
        ("{interval: 1m}", 10),
        ("{interval: 1m, maxAttempts: -1}", -1),
        ("{interval: 1m, maxAttempts: 0}", 1),
        ("{interval: 1m, maxAttempts: 3}", 3),
        ("{interval: 1m, max_retries: 0}", 1),
        ("{interval: 1m, max_retries: 3}", 4),
        ("{interval: 1m, always_retry_on_failure: true}", -1),
        ("{interval: 1m, alwaysRetryOnFailure: false}", 1),
        ("{interval: 1m, always_retry_on_failure: false, max_retries: 3}", 4),
        ("{interval: 1m, always_retry_on_failure: true, max_retries: 3}", 4),
    ],
)
def test_retries_are_counted_in_the_words_of_either_system(one, written: str, attempts: int):
    assert one(f"retryPolicy: {written}").options == {"retry": RetryPolicy("1m", max_attempts=attempts)}


@pytest.mark.parametrize("interval", ["exponential(1s, 2, 1h)", "linear_10m", "1s,2s jitter 0.5"])
def test_an_interval_is_any_policy_in_text_form(one, interval: str):
    policy = one(f"retryPolicy: {{interval: '{interval}'}}").options["retry"]
    assert policy == RetryPolicy(interval)


def test_a_schedule_has_a_zone_and_params_and_says_what_becomes_of_missed_slots(one):
    task = one(
        """
        cronjob:
          cronExpression: 0 30 6 * * mon-fri
          zone: Europe/Vienna
          params: {size: 3}
          missed: all
          limit: 5
          overlap: allow
        parameters:
          required: [day, size]
          properties:
            day: {type: string, format: date}
            size: {type: integer}
        """
    )
    wanted = Cron("0 30 6 * * mon-fri", "Europe/Vienna", {"size": 3}, "all", 5, "allow")
    assert task.options["cron"] == wanted


# Schemas


@pytest.mark.parametrize(
    "written,expected",
    [
        ("{type: string}", {"type": "string"}),
        ("{type: integer, format: int32}", {"type": "integer", "format": "int32"}),
        ("{type: number, format: float}", {"type": "number"}),
        ("{type: number, format: double}", {"type": "number"}),
        ("{type: string, format: date-time}", {"type": "string", "format": "date-time"}),
        ("{type: boolean, title: T, example: true, deprecated: true, x-go-type: T}", {"type": "boolean"}),
        ("{description: anything}", {"description": "anything"}),
        ("{type: [string, 'null']}", {"type": "string", "nullable": True}),
        ("{type: string, nullable: true}", {"type": "string", "nullable": True}),
        ("{type: string, nullable: false}", {"type": "string", "nullable": False}),
        ("{enum: [on, off]}", {"type": "string", "enum": ["on", "off"]}),
        ("{enum: [1, 2, null]}", {"type": "integer", "nullable": True, "enum": [1, 2]}),
        ("{const: fixed}", {"type": "string", "enum": ["fixed"]}),
        ("{type: integer, format: int32, enum: [1]}", {"type": "integer", "enum": [1]}),
        ("{items: {type: integer}}", {"type": "array", "items": {"type": "integer"}}),
        ("{type: object}", {"type": "object"}),
        (
            "{type: object, additionalProperties: {type: integer}}",
            {"type": "object", "additionalProperties": {"type": "integer"}},
        ),
        (
            "{properties: {a: {type: string, default: x}, b: {}}, required: [a, b]}",
            {
                "type": "object",
                "properties": {"a": {"type": "string", "default": "x"}, "b": {}},
                "required": ["b"],
            },
        ),
        ("{type: string, default: 2024-01-02, format: date}",
         {"type": "string", "format": "date", "default": "2024-01-02"}),
        ("{type: string, default: 12:30}", {"type": "string", "default": "12:30"}),
        ("{type: integer, default: 0x1F}", {"type": "integer", "default": 31}),
        ("{type: number, default: 1e2}", {"type": "number", "default": 100.0}),
        ("{type: string, nullable: true, default: null}",
         {"type": "string", "nullable": True, "default": None}),
        (
            "{type: integer, format: int32, nullable: true, default: null}",
            {"type": "integer", "format": "int32", "nullable": True, "default": None},
        ),
        ("{type: string, pattern: '^a+$', minLength: 1, maxLength: 9}",
         {"type": "string", "pattern": "^a+$", "minLength": 1, "maxLength": 9}),
    ],
)  # fmt: skip
def test_a_schema_has_one_normal_form(schema, written: str, expected: dict[str, Any]):
    assert schema(written) == expected


def test_parameters_of_any_shape_are_an_open_object(one):
    for written in ("{type: object}", "{}"):
        assert one(f"parameters: {written}").parameters == {
            "type": "object",
            "properties": {},
            "additionalProperties": True,
        }


# What is passed over


def test_what_is_not_known_is_passed_over_with_a_warning_that_names_the_nearest(load: Load):
    spec = load(
        """\
        version: 1
        tasks:
          - name: x
            retryPolcy: {interval: 1m}
            x-owner: me
            events: [onFailed, onSuccess]
            parameters:
              type: object
              properties:
                a: {type: string, format: dates}
                b: {type: string, maxLenght: 3}
        """
    )
    assert [warning.rpartition("tasks.yaml:")[2] for warning in spec.warnings] == [
        "1:1: unknown key 'version' is passed over; the nearest known one is 'tasks'",
        "4:5: unknown key 'retryPolcy' is passed over; the nearest known one is 'retryPolicy'",
        "6:24: event 'onSuccess' isn't known and is passed over; the nearest known one is 'onFailed'",
        "10:35: format 'dates' isn't known here and is passed over; the nearest known one is 'date'",
        "11:27: unknown key 'maxLenght' is passed over; the nearest known one is 'maxLength'",
    ]
    assert spec.tasks[0].options == {}
    assert spec.tasks[0].parameters["properties"] == {"a": {"type": "string"}, "b": {"type": "string"}}


def test_a_byte_order_mark_and_a_version_of_yaml_change_nothing(tmp_path: Path):
    path = tmp_path / "tasks.yaml"
    path.write_bytes(b"\xef\xbb\xbf%YAML 1.2\n---\ntasks: [{name: x}]\n...\n")
    assert [task.name for task in load_spec(path).tasks] == ["x"]

"""What is wrong with a file is told all at once, each with its place and what to do."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest
import yaml

from asynctaskd.definitions.spec import source
from asynctaskd.definitions.spec.source import MAX_BYTES
from asynctaskd.definitions.spec.tasks import load_spec
from asynctaskd.errors import ConfigError


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_spec(path)
    return [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]


@pytest.fixture
def refusal(tmp_path: Path):
    """The problems of a file with that text or content, each without the file's name."""

    def problems(content: str | bytes) -> list[str]:
        path = tmp_path / "tasks.yaml"
        path.write_bytes(content if isinstance(content, bytes) else dedent(content).encode())
        return problems_of(path)

    return problems


FILES = {
    "": "1:1: the file is empty",
    "# nothing": "the file is empty",
    "null": "1:1: the file is empty",
    "[]": "1:1: the file must be a mapping, got a list",
    "text": "1:1: the file must be a mapping, got 'text'",
    "task: []": "1:1: the file needs the key tasks, a list of tasks",
    "tasks: {a: 1}": "1:8: tasks must be a list, got a mapping",
    "tasks:": "1:7: tasks must be a list, got nothing",
    "tasks: []": "1:8: tasks must hold at least one task",
    "tasks: [a]": "1:9: a task must be a mapping, got 'a'",
    "tasks: [{name: a}]\n---\n{}": "2:1: a file holds one document; here begins another",
    "tasks: [{name: &a x}]": "1:16: anchors aren't supported; a text that begins with & needs quotes",
    "tasks: [{name: *a}]": "1:16: aliases aren't supported; a text that begins with * needs quotes",
    "tasks: [{name: !!str x}]": "1:16: tags aren't supported; a text that begins with ! needs quotes",
    "tasks: [{name: a}]\ntasks: []": "2:1: key 'tasks' stands in line 1 already",
    "tasks: [{name: a, 1: b}]": "1:19: a key must be text, got 1",
    "tasks: [{name: a, [b]: c}]": "1:19: a key must be text, got a list",
    'tasks: [{name: a, description: "\\0"}]': "1:32: a text must hold no NUL character or lone surrogate",
    "tasks: [": "this isn't YAML: ",
    "tasks:\n  - name: 'a": "this isn't YAML: ",
    "tasks:\n\t- name: a": "this isn't YAML: ",
    "tasks: [{name: \x07}]": "1:16: YAML has no character U+0007",
    "[" * 100: "1:66: this is nested more than 64 levels deep",
    "{a: " * 100: "this is nested more than 64 levels deep",
}


@pytest.mark.parametrize("content,problem", FILES.items(), ids=map(repr, FILES))
def test_a_file_that_is_none_is_refused(refusal, content: str, problem: str):
    assert any(problem in line for line in refusal(content)), refusal(content)


def test_a_file_that_is_too_large_is_refused(refusal):
    assert refusal(b"tasks: [{name: a}]" + b" " * MAX_BYTES) == [" is larger than 1048576 bytes"]


def test_a_file_of_many_brackets_is_refused_without_exhausting_anything(refusal):
    [problem] = refusal(b"[" * (MAX_BYTES - 1))
    assert "nest" in problem


def test_the_parser_that_is_written_in_python_refuses_the_same(refusal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(source, "_Loader", yaml.SafeLoader)
    for content, problem in FILES.items():
        assert any(problem in line for line in refusal(content)), content
    assert refusal(b"[" * (MAX_BYTES - 1)) == ["1:66: this is nested more than 64 levels deep"]


def test_a_file_that_is_no_utf8_is_refused(refusal):
    assert refusal(b"tasks: \xff") == [" isn't UTF-8 text (byte 7)"]


def test_a_file_that_is_not_there_is_refused(tmp_path: Path):
    assert problems_of(tmp_path / "none.yaml") == [" can't be read: No such file or directory"]
    assert problems_of(tmp_path) == [" can't be read: Is a directory"]


# Line 1 is `tasks:`, line 2 `- name: x`, and what is given here begins in line 3, column 3.
TASKS = {
    "name: y": "3:3: key 'name' stands in line 2 already",
    "description: 5": "3:16: description must be text, got 5",
    "timeout: 0s": "3:12: timeout must be more than 0, got '0s'",
    "timeout: 30": "3:12: timeout must be text such as '5s' or a timedelta, got 30",
    "timeout:": "3:11: timeout must have a value; leave it out for its default",
    "delay: 1.5h": "3:10: delay: malformed duration '1.5h': write it as 500ms, 5s, 30m, 1h30m or 1d",
    "deadline: soon": "3:13: deadline: malformed duration 'soon'",
    "keep: -1": "3:9: keep must be text such as '5s' or a timedelta, got -1",
    "labels: mail": "3:11: labels must be a list of strings, got 'mail'",
    "labels: [a b]": "3:11: a label must match",
    "tags: [1]": "3:9: a tag must be a string, got 1",
    "priority: -1": "3:13: priority must be at least 0, got -1",
    "priority: 2147483648": "3:13: priority must be at most 2147483647",
    "priority: high": "3:13: priority must be an integer or INF, got 'high'",
    "weight: 0": "3:11: weight must be at least 1, got 0",
    "serialKey: ''": "3:14: serial_key must have 1 to 512 characters, got 0",
    "serialKey: a\n  serial_key: b": "4:3: 'serialKey' and 'serial_key' are one key, given twice",
    "uniqueUntil: later": "3:16: unique_until must be finished or forgotten, got 'later'",
    "retryPolicy: 5m": "3:16: retryPolicy must be a mapping, got '5m'",
    "retryPolicy: {maxAttempts: 3}": "3:16: retryPolicy needs an interval, such as 5m or 1m,2m,4m",
    "retryPolicy: {interval: 5}": "3:27: interval must be a string, got 5",
    "retryPolicy: {interval: 5x}": "3:27: malformed retry policy '5x': write it as 1m or 1m,2m,4m",
    "retryPolicy: {interval: 5m, maxAttempts: -2}": "3:44: max_attempts must be -1 (unlimited) or an integer",
    "retryPolicy: {interval: 5m, maxAttempts: many}": "3:44: max_attempts must be -1 (unlimited)",
    "retryPolicy: {interval: 5m, max_retries: -1}": "3:44: max_retries must be at least 0, got -1",
    "retryPolicy: {interval: 5m, max_retries: 2, maxAttempts: 1}":
        "3:47: maxAttempts excludes max_retries and always_retry_on_failure",
    "retryPolicy: {interval: 5m, always_retry_on_failure: yes}":
        "3:56: always_retry_on_failure must be true or false, got 'yes'",
    "cronjob: '@daily'": "3:12: cronjob must be a mapping, got '@daily'",
    "cronjob: {}": "3:12: cronjob needs a cronExpression, such as '0 0 2 * * *'",
    "cronjob: {cronExpression: 22-2 * * * *}": "3:29: ",
    "cronjob: {cronExpression: '@daily', zone: Nowhere}": "Nowhere",
    "cronjob: {cronExpression: '@daily', params: 5}": "3:47: params must be a mapping, got 5",
    "cronjob: {cronExpression: '@daily', params: {a: 1}}": "3:47: the schedule's params don't fit: ",
    "events: onFailed": "3:11: events must be [onFailed], or {onFailed: task}, got 'onFailed'",
    "events: {onFailed: true}": "3:22: onFailed must name a task, got True",
    "events: {onFailed: y}": "3:22: no task of this file is named 'y'; the nearest known one is 'x'",
    "events: {onFailed: x}": "3:22: task 'x' can't follow its own failure",
    "parameters:": "3:14: a schema must be a mapping, got nothing",
    "parameters: []": "3:15: a schema must be a mapping, got a list",
    "parameters: {type: string}": "3:15: parameters must be of type object, got string",
    "parameters: {type: object, nullable: true}": "nullable has no meaning for all parameters together",
    "parameters: {type: [object, 'null']}": "3:15: nullable has no meaning for all parameters together",
    "parameters: {type: object, const: x}": "3:15: enum has no meaning for all parameters together",
    "parameters: {type: object, default: {}}": "default has no meaning for all parameters together",
    "parameters: {additionalProperties: {type: string}}":
        "3:38: additionalProperties of all parameters together must be true or false",
    "parameters: {properties: []}": "3:28: properties must be a mapping, got a list",
    "parameters: {properties: {a: {}}, required: a}": "3:47: required must be a list, got 'a'",
    "parameters: {properties: {user: {}}, required: [usr]}":
        "3:51: 'usr' is required, but no property; the nearest known one is 'user'",
    "parameters: {properties: {user_id: {}, userId: {}}}":
        "3:42: 'user_id' and 'userId' would both be user_id in Python: rename one of them",
    "parameters: {properties: {'--': {}}}": "3:29: no name in Python can be made of '--'",
}  # fmt: skip


@pytest.mark.parametrize("content,problem", TASKS.items(), ids=TASKS)
def test_a_task_that_breaks_a_rule_is_refused(refusal, content: str, problem: str):
    found = refusal(f"tasks:\n- name: x\n  {content}")
    assert any(problem in line for line in found), found


# What is given here begins in line 6, column 14.
SCHEMAS = {
    "5": "6:14: a schema must be a mapping, got 5",
    "{type: strin}": "6:21: 'strin' is no type; the nearest known one is 'string'",
    "{type: [string, integer]}": "6:21: type must be one type, and null beside it if you like",
    "{type: string, minimum: 1}": "6:29: minimum has no meaning for type string",
    "{minimum: 1}": "6:15: minimum has no meaning for anything",
    "{type: integer, minLength: 1}": "6:30: minLength has no meaning for type integer",
    "{type: integer, minimum: 0.5}": "6:39: minimum must be an integer, got 0.5",
    "{type: number, maximum: x}": "6:38: maximum must be a number, got 'x'",
    "{type: integer, multipleOf: 0}": "6:42: multipleOf must be more than 0, got 0",
    "{type: integer, minimum: 2, maximum: 1}": "6:39: minimum is more than maximum",
    "{type: string, minLength: -1}": "6:40: minLength must be at least 0, got -1",
    "{type: string, pattern: '['}": "6:38: pattern '[' can't be read: ",
    "{type: string, pattern: '(?=a)'}": "6:38: pattern '(?=a)' can't be read: ",
    "{type: string, format: date, maxLength: 3}": "6:43: maxLength has no meaning beside format date",
    "{type: string, nullable: maybe}": "6:39: nullable must be true or false, got 'maybe'",
    "{type: string, description: [a]}": "6:42: description must be a string, got ['a']",
    "{$ref: other.yaml}": "6:15: $ref isn't supported: write the schema out",
    "{allOf: []}": "6:15: allOf isn't supported: write the schema out",
    "{oneOf: []}": "6:15: oneOf isn't supported: a value has one type, and may be null (nullable: true)",
    "{type: array, uniqueItems: true}": "6:28: uniqueItems isn't supported: check it in the handler",
    "{type: object, patternProperties: {}}": "6:29: patternProperties isn't supported",
    "{type: object, properties: {a: {}}, additionalProperties: {type: string}}":
        "additionalProperties beside properties must be true or false",
    "{type: array, items: [{}]}": "6:35: a schema must be a mapping, got a list",
    "{enum: a}": "6:21: enum must be a list, got 'a'",
    "{enum: []}": "6:21: enum must hold a value that isn't null",
    "{enum: [a, 1]}": "type must be one type",
    "{type: string, enum: [a, 1]}": "6:39: 1 isn't of type string",
    "{type: string, enum: [true]}": "6:36: True isn't of type string",
    "{type: number, enum: [1.5]}": "enum isn't supported for type number: check it in the handler",
    "{enum: [{}]}": "6:22: enum may hold texts, integers, true and false, got a mapping",
    "{type: string, enum: [a], maxLength: 3}": "maxLength has no meaning beside an enum",
    "{type: string, default: 5}": "6:38: default: 5 is not of type 'string'",
    "{type: integer, default: '5'}": "6:39: default: '5' is not of type 'integer'",
    "{type: integer, format: int32, default: 2147483648}": "6:54: default: 2147483648 is not a 'int32'",
    "{type: integer, minimum: 2, default: 1}": "6:51: default: 1 is less than the minimum of 2",
    "{enum: [a, b], default: c}": "6:38: default: 'c' is not one of ['a', 'b']",
    "{type: string, format: date, default: 2024-02-30}": "6:52: default: '2024-02-30' is not a 'date'",
    "{type: string, format: uuid, default: x}": "6:52: default: 'x' is not a 'uuid'",
    "{type: string, format: email, default: x}": "6:53: default: 'x' is not a 'email'",
    "{type: string, pattern: '^a', default: b}": "6:53: default: 'b' does not match '^a'",
    "{type: string, default: null}": "6:38: null is no default of what can't be null",
    "{type: string, default: ~}": "null is no default of what can't be null",
    "{type: array, items: {type: integer}, default: [1, a]}": "6:65: default: 'a' is not of type 'integer'",
    "{properties: {a: {type: string}}, required: [a], default: {}}": "default: 'a' is a required property",
    "{type: integer, default: 9223372036854775808}": "6:39: the default holds an integral number",
    "{type: number, default: .inf}": "6:38: default: '.inf' is not of type 'number'",
}  # fmt: skip


@pytest.mark.parametrize("content,problem", SCHEMAS.items(), ids=SCHEMAS)
def test_a_schema_that_breaks_a_rule_is_refused(refusal, content: str, problem: str):
    found = refusal(
        f"tasks:\n- name: x\n  parameters:\n    type: object\n    properties:\n      field: {content}"
    )
    assert any(problem in line for line in found), found


# Tasks that don't go together. They begin in line 2, column 1.
TOGETHER = {
    "- description: who": "2:3: this task needs a name",
    "- name: [a]": "2:9: name must match",
    "- name: a b": "2:9: name must match [A-Za-z0-9_.:/-]{1,128}, got 'a b'",
    "- name: '::'": "2:9: no name in Python can be made of '::'",
    "- name: a\n- name: a": "3:9: task 'a' is defined in line 2 already",
    "- name: sendEmail\n- name: send_email":
        "3:9: 'sendEmail' and 'send_email' would both be send_email in Python: rename one of them",
    "- name: AB\n- name: aB": "3:9: 'AB' and 'aB' would both be ABParams in Python",
    "- {name: a, events: {onFailed: Handle}}\n- name: Handel":
        "2:32: no task of this file is named 'Handle'; the nearest known one is 'Handel'",
    "- {name: a, events: {onFailed: b}}\n- {name: b, parameters: {properties: {c: {}}, required: [c]}}":
        "3:25: 'c' needs a default: a failure task is given no more than an id",
    "- {name: a, events: {onFailed: b}}\n- {name: b, parameters: {properties: {taskID: {type: string}}}}":
        "3:47: taskID must be of type integer: it is the id of the task that failed",
    "- {name: a, events: {onFailed: b}}\n- {name: b, parameters: {additionalProperties: false}}":
        "3:25: a failure task is given taskID, which these parameters refuse",
    "- {name: a, cronjob: {cronExpression: '@daily'}, parameters: {properties: {n: {}}, required: [n]}}":
        "2:22: the schedule's params don't fit: 'n' is a required property",
    "- {name: a, cronjob: {cronExpression: '@daily', params: {n: x}},\n"
    "   parameters: {properties: {n: {type: integer}}}}":
        "2:61: the schedule's params don't fit: 'x' is not of type 'integer'",
}  # fmt: skip


@pytest.mark.parametrize("content,problem", TOGETHER.items(), ids=TOGETHER)
def test_tasks_that_do_not_go_together_are_refused(refusal, content: str, problem: str):
    found = refusal("tasks:\n" + content)
    assert any(problem in line for line in found), found


def test_a_schedule_needs_no_value_for_what_its_slot_fills_in(tmp_path: Path):
    properties = "{day: {type: string, format: date}, at: {type: string, format: date-time}}"
    path = tmp_path / "tasks.yaml"
    path.write_text(
        "tasks: [{name: a, cronjob: {cronExpression: '@daily'},"
        f" parameters: {{properties: {properties}, required: [day, at]}}}}]"
    )
    assert load_spec(path).tasks[0].options["cron"].expression == "@daily"


def test_all_problems_of_a_file_are_told_at_once_in_its_order(refusal):
    found = refusal(
        """\
        tasks:
          - name: a
            timeout: never
            parameters:
              type: object
              properties:
                one: {type: integer, default: x}
                two: {type: sting}
            events: {onFailed: nobody}
          - name: a
            retryPolicy: {interval: often}
          - labels: 5
        """
    )
    assert [line.partition(": ")[0] for line in found] == [
        "3:14", "7:39", "8:21", "9:24", "10:11", "11:29", "12:5", "12:13",
    ]  # fmt: skip


def test_a_file_with_problems_still_finds_them_below_what_is_passed_over(refusal):
    body = indent("tmieout: 5\ntimeout: never", "  ")
    assert refusal(f"tasks:\n- name: x\n{body}") == [
        "4:12: timeout: malformed duration 'never': write it as 500ms, 5s, 30m, 1h30m or 1d"
    ]

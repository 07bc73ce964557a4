"""No secret in any output: whatever holds one, whoever tells of it, and however."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy.exc
import structlog
from django.db.utils import IntegrityError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest
from pydantic import BaseModel, SecretStr, ValidationError

from asynctaskd.cli.failures import report
from asynctaskd.config import load_config
from asynctaskd.definitions.secrets import without
from asynctaskd.definitions.text import describe_error
from asynctaskd.errors import AsynctaskdError, ConfigError, DatabaseUnavailableError
from asynctaskd.postgres.driver import translate
from asynctaskd.telemetry import emit
from asynctaskd.telemetry.levels import LEVELS
from asynctaskd.telemetry.logs import configure_logging
from asynctaskd.telemetry.metrics import Metrics

# Long and odd enough to stand in nothing else.
SECRETS = st.from_regex(r"s3cr3t[A-Za-z0-9_!$%&*+~^-]{6,20}", fullmatch=True)
EVENTS = sorted(LEVELS)

GENERATED = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30
)


class Card(BaseModel):
    number: int


def invalid(secret: str) -> ValidationError:
    try:
        Card.model_validate({"number": secret})
    except ValidationError as error:
        return error
    raise AssertionError


def of_server(kind: type[asyncpg.PostgresError], message: str, **fields: str) -> asyncpg.PostgresError:
    error = kind(message)
    for name, value in fields.items():
        setattr(error, name, value)
    return error


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def unique(secret: str) -> asyncpg.PostgresError:
    detail = f"Key (card)=({secret}) already exists."
    return of_server(
        asyncpg.UniqueViolationError, "duplicate key value", detail=detail, constraint_name="cards_key"
    )


ERRORS: dict[str, Callable[[str], BaseException]] = {
    "pydantic": invalid,
    "asyncpg, a key": unique,
    "asyncpg, a value": lambda s: asyncpg.DataError(f"invalid input for query argument $1: '{s}'"),
    "asyncpg, detail alone": lambda s: of_server(
        asyncpg.RaiseError, "the trigger says no", detail=f"the row was {s}"
    ),
    "psycopg": lambda s: psycopg.errors.InvalidTextRepresentation(f'invalid input: "{s}"'),
    "SQLAlchemy": lambda s: sqlalchemy.exc.IntegrityError("INSERT", {"card": s}, unique(s)),
    "Django": lambda s: raised_from(
        IntegrityError(f"Key (card)=({s})"), psycopg.errors.UniqueViolation(f"Key (card)=({s})")
    ),
    "a URL": lambda s: OSError(f"can't connect to postgresql://shop:{s}@db.example/shop"),
    "a parameter of a URL": lambda s: OSError(f"no host in postgresql://db.example/shop?password={s}&a=1"),
    "a keyword": lambda s: OSError(f"host=db password='{s}' is refused"),
    "a group": lambda s: ExceptionGroup("several", [invalid(s), unique(s)]),
}
by_every_error = pytest.mark.parametrize("error_of", ERRORS.values(), ids=ERRORS.keys())


class Output:
    """All that was written."""

    def __init__(self, form: str) -> None:
        self._stream = io.StringIO()
        self._logs = configure_logging("debug", form, self._stream)

    @property
    def text(self) -> str:
        self._logs.flush()
        return self._stream.getvalue()

    def close(self) -> None:
        self._logs.close()
        structlog.reset_defaults()


@pytest.fixture(params=["json", "console"])
def output(request):
    opened = Output(request.param)
    yield opened
    opened.close()


@GENERATED
@given(secret=SECRETS, event=st.sampled_from(EVENTS))
def test_no_event_tells_a_payload_a_result_or_what_is_called_a_secret(output, secret, event):
    private: dict[str, Any] = {
        "payload": {"card": secret},
        "params": Card.model_construct(number=secret),
        "result": secret,
        "progress": {"message": secret},
        "metadata": {"who": secret},
    }
    facts: dict[str, Any] = {
        "dsn": f"postgresql://shop:{secret}@db/shop",
        "database_url": secret,
        "api_key": secret,
        "settings": {"Password": secret, "nested": [{"client_secret": secret}]},
        "note": f"tried postgres://shop:{secret}@db/shop and password={secret}",
        "given": SecretStr(secret),
    }
    emit(event, **private, **facts)
    structlog.get_logger().warning(event, **facts)
    assert secret not in output.text


@by_every_error
@GENERATED
@given(secret=SECRETS)
def test_no_error_tells_the_values_that_it_quotes(output, error_of, secret):
    error = error_of(secret)
    emit("loop.crashed", error=error)
    emit("database.lost", station="claim", error=str(translate(error) or describe_error(error)))
    structlog.get_logger().error("failed", exc_info=error)
    told = [describe_error(error), describe_error(raised_from(ValueError("it failed"), error))]
    assert secret not in output.text + " ".join(told)


@by_every_error
@pytest.mark.parametrize("ours", [ConfigError, DatabaseUnavailableError, AsynctaskdError, None], ids=str)
def test_the_command_line_tells_no_secret_of_an_error(capsys, error_of, ours):
    secret = "s3cr3t-of-the-command-line"
    error = error_of(secret)
    wrapped = error if ours is None else ours(describe_error(error))
    report(wrapped, debug=False)
    assert secret not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:{}@db.example:port/shop",
        "postgres//shop:{}@db.example/shop",
        "postgresql://db.example/shop?password={}&target_session_attrs=wrong",
        "{}",
    ],
)
def test_a_configuration_that_is_wrong_tells_no_secret_of_its_url(capsys, url):
    secret = "s3cr3t-of-the-url"
    try:
        config = load_config(None, {"ASYNCTASKD_DATABASE_URL": url.format(secret)}, {"worker.lease": "1s"})
    except ConfigError as error:
        report(error, debug=False)
    else:
        capsys.readouterr()
        print(config, repr(config))  # noqa: T201
    assert secret not in "".join(capsys.readouterr())


@GENERATED
@given(secret=SECRETS, event=st.sampled_from(EVENTS))
def test_no_metric_has_a_label_of_what_is_not_declared(secret, event):
    metrics = Metrics(Nothing())
    facts = dict.fromkeys(("payload", "result", "error", "dsn"), secret) | {"task": secret, "names": [secret]}
    try:
        emit(event, **facts)
        assert secret not in generate_latest(metrics.registry).decode()
    finally:
        metrics.close()


class Nothing:
    def declared_name(self, name: str) -> str | None:
        return None


@GENERATED
@given(secret=SECRETS | st.text(min_size=1) | st.integers(), around=st.text(alphabet="abc xyz"))
def test_values_of_secret_fields_are_taken_out_of_texts_in_every_form(secret, around):
    payload = {"card": {"number": [secret]}, "name": "Ada"}
    paths = [["card", "number", "*"]]
    for said in (str(secret), repr(secret), json.dumps(secret), f"{payload}"):
        left = without(f"{around}{said}{around}", payload, paths)
        assert str(secret) not in left.replace("***", "").replace(around, "") or str(secret) in "'\"[]{}: *"

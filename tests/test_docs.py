"""The documentation tells the truth: its example runs, its tables are complete, its links lead somewhere.

`python tests/test_docs.py` writes the tables of docs/reference/configuration.md anew from the settings.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import typer.main
from pydantic import SecretStr

import asynctaskd
from asynctaskd import App, Client, FatalTaskError, RetryPolicy, TaskStatus, testing
from asynctaskd.cli.failures import ExitCode
from asynctaskd.cli.probes import CHECKS
from asynctaskd.config import SETTINGS, DaemonConfig, Setting, load_config
from asynctaskd.config.live import LIVE
from asynctaskd.daemon.supervisor import Daemon
from asynctaskd.definitions.codegen.module import write_module
from asynctaskd.definitions.options import DeclaredOptions, RequestOptions
from asynctaskd.definitions.spec import drafts, keywords, policies
from asynctaskd.definitions.spec.keys import camel
from asynctaskd.definitions.spec.tasks import load_spec
from asynctaskd.durations import format_duration
from asynctaskd.task import EventKind
from asynctaskd.telemetry.metrics import Metrics

if TYPE_CHECKING:
    import asyncpg

    class Database:
        dsn: str


ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
CONFIGURATION = DOCS / "reference" / "configuration.md"
_GENERATED = re.compile(r"(?<=<!-- settings -->\n).*(?=<!-- end of settings -->)", re.DOTALL)


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf8")


def codes_in_first_column(text: str) -> set[str]:
    """What stands in backquotes in the first cells of tables."""
    cells = re.findall(r"^\| (`[^|]*)\|", text, re.MULTILINE)
    return {code for cell in cells for code in re.findall(r"`([^`]+)`", cell)}


# Tables


def test_the_page_on_metrics_lists_every_metric_and_no_other() -> None:
    metrics = Metrics()
    told = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in metrics.registry.collect()
        if metric.name.startswith("asynctaskd_")
    }
    metrics.close()
    assert codes_in_first_column(page("reference/metrics.md")) == told


def test_the_page_on_check_lists_every_finding_in_order_each_with_what_to_do() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+? \| (.+) \|$", page("reference/check.md"), re.MULTILINE)
    assert [name for name, remedy in rows if remedy.strip()] == [
        "reachable", "access", *(name for name in CHECKS if name not in ("reachable", "access"))
    ]  # fmt: skip


# The example of the README


@contextmanager
def module_in(source: Path, name: str, marker: str, folder: Path) -> Iterator[ModuleType]:
    """The Python block of a page that begins with a marker, imported as `asynctaskd run --app` does."""
    blocks = re.findall(r"```python\n(.*?)```", source.read_text("utf8"), re.DOTALL)
    [code] = [block for block in blocks if block.startswith(marker)]
    path = folder / f"{name}.py"
    path.write_text(code, encoding="utf8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[name]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[ModuleType]:
    """The README's example."""
    with module_in(ROOT / "README.md", "shop", "# shop.py", tmp_path) as module:
        yield module


@pytest.fixture
def first(tmp_path: Path) -> Iterator[ModuleType]:
    """The tutorial's example."""
    page = DOCS / "tutorial" / "first-task.md"
    with module_in(page, "first", "from asynctaskd import", tmp_path) as module:
        yield module


def worker_of(shop: ModuleType, dsn: str) -> Daemon:
    return Daemon(shop.app, dsn, load_config(None, {}, {}))


@pytest.mark.parametrize("name", testing.__all__)
def test_the_python_page_names_what_is_there_for_tests(name: str) -> None:
    assert f"| `{name}` |" in page("reference/python.md").partition("## For tests")[2]


async def test_the_example_of_the_readme_runs(
    shop: ModuleType, database: Database, pool: asyncpg.Pool
) -> None:
    task_id = await shop.sign_up(database.dsn, "ada@example.org")

    await worker_of(shop, database.dsn).run(once=True)

    task = await Client(pool).get_task(task_id)
    assert task.status is TaskStatus.COMPLETED
    assert task.result == {"sent_to": "ada@example.org"}
    assert await pool.fetchval("SELECT email FROM users") == "ada@example.org"


async def test_the_failure_hook_of_the_readme_writes_what_it_says(
    shop: ModuleType, database: Database, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise FatalTaskError("no such mailbox")

    monkeypatch.setattr(shop.send_welcome, "call", refuse)
    await shop.sign_up(database.dsn, "ada@example.org")

    await worker_of(shop, database.dsn).run(once=True)

    assert await pool.fetchval("SELECT problem FROM users") == "FatalTaskError: no such mailbox"


async def test_the_task_of_the_tutorial_fails_once_and_then_counts(
    first: ModuleType, database: Database, pool: asyncpg.Pool
) -> None:
    client = Client(pool)
    task_id = await client.enqueue("count_words", {"text": "to be or not to be"})

    await worker_of(first, database.dsn).run(once=True)
    assert (await client.get_task(task_id)).status is TaskStatus.SCHEDULED

    await pool.execute("UPDATE asynctaskd.tasks SET run_at = now()")
    await worker_of(first, database.dsn).run(once=True)
    task = await client.get_task(task_id)
    assert (task.status, task.attempts, task.result) == (TaskStatus.COMPLETED, 2, {"words": 6})
    assert [event["kind"] for event in await client.events(task_id)] == ["retried"]


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the service on the page on HTTP tasks."""
    monkeypatch.setenv("MAIL_SECRET", "known to both")
    page = DOCS / "how-to" / "http-and-command-handlers.md"
    with module_in(page, "receiver", "# receiver.py", tmp_path) as module:
        monkeypatch.setattr(module.Tasks, "log_message", lambda *_: None)
        with ThreadingHTTPServer(("127.0.0.1", 0), module.Tasks) as server:
            threading.Thread(target=server.serve_forever).start()
            yield f"http://127.0.0.1:{server.server_port}/"
            server.shutdown()


async def test_the_service_of_the_page_on_http_tasks_runs(
    receiver: str, database: Database, pool: asyncpg.Pool
) -> None:
    app = App(http_hosts=["127.0.0.1"])
    app.http_task("email:new", url=receiver, secret=SecretStr("known to both"))
    app.http_task("forged", url=receiver, secret=SecretStr("another"))
    client = Client(pool)
    good = await client.enqueue("email:new", {"to": "ada@example.org"})
    bad = await client.enqueue("email:new", {"to": "ada"})
    forged = await client.enqueue("forged", {"to": "ada@example.org"})

    await Daemon(app, database.dsn, load_config(None, {}, {})).run(once=True)

    assert (await client.get_task(good)).result == {"sent_to": "ada@example.org"}
    assert (await client.get_task(bad)).last_error == "FatalTaskError: that is no address"
    assert "401" in str((await client.get_task(forged)).last_error)


# Tables that must be complete


def test_the_configuration_reference_is_in_step_with_the_settings() -> None:
    [written] = _GENERATED.findall(CONFIGURATION.read_text("utf8"))
    assert written == settings_tables(), f"run `python {Path(__file__).relative_to(ROOT)}`"


def test_the_configuration_reference_lists_what_takes_no_restart() -> None:
    part = CONFIGURATION.read_text("utf8").partition("## Without a restart")[2].partition("## Values")[0]
    assert codes_in_first_column(part) == LIVE


@pytest.mark.parametrize("status", TaskStatus)
def test_the_glossary_explains_every_status(status: TaskStatus) -> None:
    assert status.value in codes_in_first_column(page("reference/glossary.md"))


@pytest.mark.parametrize("kind", EventKind)
def test_the_glossary_explains_every_event(kind: EventKind) -> None:
    assert kind.value in codes_in_first_column(page("reference/glossary.md"))


@pytest.mark.parametrize("status", TaskStatus)
def test_the_page_on_states_names_every_status(status: TaskStatus) -> None:
    assert f"`{status.value}`" in page("reference/states.md")


def options_declarable_and_requestable() -> dict[str, tuple[bool, bool]]:
    """Where the options page says that each option may be given: with the definition, at enqueue."""
    rows = re.findall(r"^\| `(\w+)` \| (✓?) ?\| (✓?) ?\|", page("reference/options.md"), re.MULTILINE)
    return {name: (bool(declared), bool(requested)) for name, declared, requested in rows}


def test_the_options_page_lists_every_option_and_where_it_may_be_given() -> None:
    declared, requested = DeclaredOptions.__annotations__, RequestOptions.__annotations__
    names = {*declared, *requested}
    assert options_declarable_and_requestable() == {
        name: (name in declared, name in requested) for name in names
    }


@pytest.mark.parametrize("view", ["all_tasks", "desired_slots"])
async def test_the_sql_page_lists_the_columns_of_a_view_in_order(
    connection: asyncpg.Connection, view: str
) -> None:
    rows = await connection.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) AS type FROM pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0 ORDER BY attnum",
        f"asynctaskd.{view}",
    )
    columns = [
        (row["attname"], row["type"].replace("timestamp with time zone", "timestamptz")) for row in rows
    ]

    section = page("reference/sql.md").partition(f"## The view {view}")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \| `([\w\[\]]+)` \|", section, re.MULTILINE) == columns


async def test_the_sql_page_lists_every_table(connection: asyncpg.Connection) -> None:
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'asynctaskd'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    assert {row["relname"] for row in tables} <= codes_in_first_column(page("reference/sql.md"))


@pytest.mark.parametrize("function", ["enqueue", "enqueue_many"])
async def test_the_sql_page_names_every_argument_of_the_way_in(
    connection: asyncpg.Connection, function: str
) -> None:
    arguments = await connection.fetchval(
        "SELECT proargnames FROM pg_proc WHERE oid = $1::regproc", f"asynctaskd.{function}"
    )
    [signature] = re.findall(
        rf"asynctaskd\.{function}\(\n(.*?)\) RETURNS", page("reference/sql.md"), re.DOTALL
    )
    assert (
        re.findall(r"(\w+) (?:text|jsonb|integer|bigint|interval|timestamptz|boolean)", signature)
        == arguments
    )


async def test_the_sql_page_explains_every_error_of_ours(connection: asyncpg.Connection) -> None:
    sources = await connection.fetch(
        "SELECT prosrc FROM pg_proc WHERE pronamespace = 'asynctaskd'::regnamespace"
    )
    raised = {code for row in sources for code in re.findall(r"ERRCODE = '(ATD\d\d)'", row["prosrc"])}
    assert raised
    assert raised <= codes_in_first_column(page("reference/sql.md"))


def written_retry_policies() -> list[str]:
    section = page("reference/retry.md").partition("## Text form")[2].partition("\n## ")[0]
    return sorted(codes_in_first_column(section))


@pytest.mark.parametrize("text", written_retry_policies())
async def test_python_and_sql_take_every_retry_policy_of_the_docs(
    connection: asyncpg.Connection, text: str
) -> None:
    for policy in (text, f"{text} jitter 0.2"):
        assert RetryPolicy.parse(policy).spec is not None
        assert await connection.fetchval("SELECT asynctaskd.retry_problem($1)", policy) is None


@pytest.mark.parametrize("name", asynctaskd.__all__)
def test_the_python_page_names_every_public_name(name: str) -> None:
    assert f"`{name}`" in page("reference/python.md")


def test_the_python_page_names_every_method_of_the_client() -> None:
    methods = {name for name in dir(Client) if not name.startswith("_")}
    assert methods <= set(re.findall(r"`(?:await )?(\w+)", page("reference/python.md")))


def commands() -> Iterator[tuple[str, Any]]:
    """Every command by its path, such as `tasks list`, and what typer made of it."""
    from asynctaskd.cli.commands import cli

    rest = [("", typer.main.get_command(cli))]
    while rest:
        path, command = rest.pop()
        members = getattr(command, "commands", {})
        rest += [(f"{path} {name}".strip(), member) for name, member in members.items()]
        if not members:
            yield path, command


def test_the_page_on_the_command_line_lists_every_command_and_no_other() -> None:
    headings = set(re.findall(r"^## (.+)$", page("reference/cli.md"), re.MULTILINE))
    assert headings - {"Flags that most commands take"} == {path for path, _ in commands()}


def test_the_page_on_the_command_line_lists_every_flag_of_each_command() -> None:
    sections = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", page("reference/cli.md"), re.MULTILINE))
    missing = [
        f"{path} {flag}"
        for path, command in commands()
        for parameter in command.params
        for flag in parameter.opts
        if flag.startswith("--") and not re.search(rf"{flag}\b", sections[path])
    ]
    assert missing == []


@pytest.mark.parametrize("code", ExitCode)
def test_the_page_on_exit_codes_explains_each(code: ExitCode) -> None:
    assert f"| {code.value} |" in page("reference/exit-codes.md")


# Files of definitions


def yaml_blocks() -> list[str]:
    pages = ("how-to/define-tasks-in-yaml.md", "reference/tasks-yaml.md")
    blocks = [block for name in pages for block in re.findall(r"```yaml\n(.*?)```", page(name), re.DOTALL)]
    assert len(blocks) > 1
    return blocks


@pytest.mark.parametrize("block", yaml_blocks())
def test_every_file_of_definitions_in_the_docs_is_read_without_a_warning(block: str, tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(block)
    assert load_spec(path).warnings == []


def test_the_page_on_tasks_yaml_lists_every_key_and_keyword(tmp_path: Path) -> None:
    told = codes_in_first_column(page("reference/tasks-yaml.md"))
    keys = {*drafts._KEYS, *policies._RETRY_KEYS, *policies._CRON_KEYS}
    assert {key for key in keys if not {key, camel(key)} & told} == set()
    told |= set(re.findall(r"\w+", " ".join(told)))
    assert set(keywords.KNOWN) - {"properties"} - told == set()


def test_the_executor_of_the_docs_suits_the_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page("how-to/define-tasks-in-yaml.md")
    [definitions, *_] = yaml_blocks()
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class Tasks" in block
    ]
    (tmp_path / "tasks.yaml").write_text(definitions)
    module = ModuleType("tasks_gen")
    monkeypatch.setitem(sys.modules, "tasks_gen", module)
    exec(write_module(load_spec(tmp_path / "tasks.yaml")), vars(module))
    names: dict[str, Any] = {"Mailer": object}
    exec(compile(f"from __future__ import annotations\n{code}", "shop", "exec"), names)
    assert list(names["app"].definitions) == ["SendEmail", "ProcessDailyReports"]


# Tests that a page names


def named_tests_of(name: str) -> list[str]:
    return re.findall(r"`([\w/]+\.py::\w+)`", page(name))


def test_every_test_that_the_page_on_reliability_names_exists() -> None:
    sources = {path: path.read_text("utf8") for path in (ROOT / "tests").rglob("test_*.py")}
    missing = [
        named
        for named in named_tests_of("explanation/reliability.md")
        for file, _, test in [named.partition("::")]
        if not re.search(rf"^(async )?def {test}\(", sources.get(ROOT / "tests" / file, ""), re.MULTILINE)
    ]
    assert missing == []


def test_every_fault_on_the_page_on_reliability_has_a_test_or_a_reason() -> None:
    rows = re.findall(r"^\| (.+?) \| .+? \| (.+) \|$", page("explanation/reliability.md"), re.MULTILINE)
    faults = {fault: covered for fault, covered in rows if fault not in ("fault", "---")}
    assert len(faults) > 60
    assert {fault for fault, covered in faults.items() if "::" not in covered} == {
        fault for fault, covered in faults.items() if covered.startswith("comes with ")
    }


# Links


def links() -> Iterator[tuple[Path, str]]:
    for source in PAGES:
        text = re.sub(r"```.*?```", "", source.read_text("utf8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not target.startswith(("http://", "https://")):
                yield source, target


@pytest.mark.parametrize(("source", "target"), list(links()), ids=lambda value: str(value).rpartition("/")[2])
def test_every_relative_link_leads_somewhere(source: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    found = (source.parent / path).resolve() if path else source
    assert found.exists(), f"{source.relative_to(ROOT)} links to {target}"
    if anchor:
        assert anchor in anchors(found), f"{source.relative_to(ROOT)} links to {target}"


def anchors(source: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", source.read_text("utf8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_leads_to_every_page() -> None:
    index = page("README.md")
    unlisted = [
        path for path in DOCS.rglob("*.md") if str(path.relative_to(DOCS)) not in {*index_targets(index)}
    ]
    assert unlisted == [DOCS / "README.md"]


def index_targets(index: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", index)


# What the configuration page is made of


def settings_tables() -> str:
    """The tables of the configuration page, one a section."""
    return "\n".join(_section(name, info.annotation) for name, info in DaemonConfig.model_fields.items())


def _section(name: str, model: Any) -> str:
    rows = "".join(_row(setting) for setting in SETTINGS.values() if setting.section == name)
    head = "| key | takes | default | meaning |\n|---|---|---|---|\n"
    return f"## [{name}]\n\n{model.__doc__}\n\n{head}{rows}"


def _row(setting: Setting) -> str:
    meaning = f"{setting.description} Variable: `{setting.variable}`"
    return f"| `{setting.name}` | {setting.expects} | {_default(setting.default)} | {meaning} |\n"


def _default(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case timedelta():
            return f"`{format_duration(value)}`"
        case tuple():
            return f"`{list(value)}`"
        case _:
            return f"`{value}`"


if __name__ == "__main__":
    CONFIGURATION.write_text(
        _GENERATED.sub(lambda _: settings_tables(), CONFIGURATION.read_text("utf8")), "utf8"
    )

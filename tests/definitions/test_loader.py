from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from asynctaskd.definitions.loader import load_app
from asynctaskd.errors import ConfigError

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules into the current directory, which isn't importable yet; forgets them afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write_module(name: str, source: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source))

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


def refusal(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(path)
    return str(caught.value)


SHOP = """
    from asynctaskd.app import App
    app = App()
    class holder:
        inner = app
    number = 3
    @app.task
    def tick() -> None: ...
"""


def test_an_app_is_found_in_the_current_directory(write: Write):
    write("shop_one.py", SHOP)
    assert list(load_app("shop_one:app").definitions) == ["tick"]


def test_packages_and_dotted_attributes_are_followed(write: Write):
    write("shop_pkg/__init__.py", "")
    write("shop_pkg/tasks.py", SHOP)
    assert load_app("shop_pkg.tasks:holder.inner") is load_app("shop_pkg.tasks:app")


@pytest.mark.parametrize("path", ["", "shop", "shop:", ":app", ".shop:app", "shop.app"])
def test_a_path_without_both_parts_is_refused(path: str):
    assert refusal(path).startswith("app must be written module:attribute, such as shop.tasks:app, got ")


@pytest.mark.parametrize("missing", ["no_such_shop", "no_such_shop.tasks"])
def test_a_missing_module_is_told_from_one_that_fails(write: Write, missing: str):
    assert "there is no module 'no_such_shop' in" in refusal(f"{missing}:app")


def test_a_missing_part_of_a_package_is_named(write: Write):
    write("shop_two/__init__.py", "")
    assert "there is no module 'shop_two.tasks' in" in refusal("shop_two.tasks:app")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("from json import no_such_name", "ImportError: cannot import name 'no_such_name'"),
        ("def (", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (
            "from asynctaskd.app import App\nApp().task('a b')",
            "InvalidDefinitionError: task name must match",
        ),
    ],
)
def test_an_error_inside_the_module_is_shown_and_kept_as_cause(write: Write, source: str, message: str):
    write("shop_broken.py", source if "a b" not in source else source + "(lambda: None)")
    with pytest.raises(ConfigError) as caught:
        load_app("shop_broken:app")
    assert str(caught.value).startswith(f"app: importing shop_broken failed: {message}")
    assert caught.value.__cause__ is not None


def test_a_missing_attribute_names_the_apps_there_are(write: Write):
    write("shop_three.py", SHOP)
    assert refusal("shop_three:ap") == "app: shop_three has no attribute 'ap'; its Apps are: app"
    write("shop_four.py", "")
    assert refusal("shop_four:app") == "app: shop_four has no attribute 'app'"


def test_what_is_no_app_is_refused(write: Write):
    write("shop_five.py", SHOP)
    assert refusal("shop_five:number") == "app: shop_five:number must be an App, got 3"

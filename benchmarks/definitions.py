"""What tasks of a tasks.yaml cost: to generate the module of 200, to start with it, and to read a payload."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

TASKS = 200
PAYLOADS = 20_000

# Six properties, one with a default, two of which have another name in Python.
PARAMETERS = """
    parameters:
      type: object
      required: [userId, templateId]
      properties:
        userId: {type: integer, format: int32, description: Whom to write}
        templateId: {type: string, minLength: 1}
        sentAt: {type: string, format: date-time}
        urgency: {type: string, enum: [low, medium, high], default: low}
        tags: {type: array, items: {type: string}}
        variables: {type: object}
"""
PAYLOAD = (
    '{"userId": 17, "templateId": "welcome", "sentAt": "2026-01-31T12:00:00Z",'
    ' "tags": ["a", "b"], "variables": {"name": "Ada"}}'
)

GENERATE = """
from pathlib import Path
from asynctaskd.definitions.codegen.module import write_module
from asynctaskd.definitions.spec.tasks import load_spec
source = write_module(load_spec(Path("tasks.yaml")))
"""
REGISTER = """
import tasks_gen
app = App()
tasks_gen.register(app, Nobody())
"""
NOBODY = """
import inspect
from asynctaskd import App
async def execute(params, ctx): ...
class Nobody:
    def __getattr__(self, name): return execute
"""
READ = f"""
from timeit import repeat
import pydantic_core
payload = {PAYLOAD!r}
bind, parse = app["task0"].bind, pydantic_core.from_json
whole = min(repeat(lambda: bind(payload), number={PAYLOADS}))
print((whole - min(repeat(lambda: parse(payload), number={PAYLOADS}))) / {PAYLOADS})
"""
TIMED = """
import time
began = time.perf_counter()
{timed}
print(time.perf_counter() - began)
"""


def printed(folder: Path, program: str) -> float:
    """The number that a program prints, in a process of its own."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return float(done.stdout)


def generating(folder: Path) -> float:
    """From nothing imported to the text of the module."""
    return printed(folder, TIMED.format(timed=GENERATE))


def command(folder: Path) -> float:
    """The whole command, from its start to its end."""
    began = time.perf_counter()
    asynctaskd = [sys.executable, "-m", "asynctaskd", "generate", "tasks.yaml"]
    subprocess.run(asynctaskd, cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - began


def starting(folder: Path) -> float:
    """Import the module and declare all tasks; asynctaskd itself is imported already."""
    return printed(folder, NOBODY + TIMED.format(timed=REGISTER))


def reading(folder: Path) -> float:
    """Read one payload, in microseconds, without what JSON alone takes."""
    return printed(folder, NOBODY + REGISTER + READ) * 1e6


FIGURES = {
    f"generate the module of {TASKS} tasks": (generating, 5.0, "s"),
    "the same by `asynctaskd generate`": (command, 5.0, "s"),
    f"import it and register {TASKS} tasks": (starting, 1.0, "s"),
    "read a payload by its class": (reading, 3.0, "µs"),
}


def measured(rounds: int) -> list[dict[str, object]]:
    """Each figure's median, least and greatest over the rounds, beside its bound."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        tasks = "".join(f"  - name: task{number}{PARAMETERS}" for number in range(TASKS))
        (folder / "tasks.yaml").write_text(f"tasks:\n{tasks}")
        command(folder)
        return [
            {
                "figure": figure,
                "bound": bound,
                "unit": unit,
                **_spread([measure(folder) for _ in range(rounds)]),
            }
            for figure, (measure, bound, unit) in FIGURES.items()
        ]


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "greatest": max(values)}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.definitions", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    figures = measured(options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    table = Table("", "median", "least", "greatest", "bound", box=None)
    for one in figures:
        numbers = (f"{one[name]:.2f} {one['unit']}" for name in ("median", "least", "greatest", "bound"))
        table.add_row(str(one["figure"]), *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()

"""From the names of a file, in whatever spelling, to good names in Python."""

from __future__ import annotations

import re
from itertools import chain
from keyword import iskeyword
from unicodedata import normalize

from pydantic import BaseModel

# Letters beyond ASCII have no capitals here: they belong to the word they stand in.
_LOWER = r"[^\W\dA-Z_]"
_WORD = re.compile(
    rf"[A-Z]{{2,}}s?(?!{_LOWER})\d*"  # HTTP in HTTPServer, IDs in taskIDs
    rf"|[A-Z]?{_LOWER}+\d*"  # send, Email, v2
    rf"|[A-Z]\d*|\d+{_LOWER}*"
)

# Fields stand beside annotations in the body of a class, and so does what makes a default of a value.
_ANNOTATIONS = ("bool", "bytes", "cast", "dict", "float", "int", "list", "str")
_TAKEN = frozenset(chain(dir(BaseModel), _ANNOTATIONS))
_PROTECTED = ("model_dump", "model_validate")


def snake(name: str) -> str:
    """`sendEmail`, `SendEmail`, `send-email`, `email:send` → `send_email` or `email_send`; "" of no word."""
    return "_".join(_words(name)).lower()


def pascal(name: str) -> str:
    """`send_email` → `SendEmail`; capitals of the name stay."""
    return "".join(word[0].upper() + word[1:] for word in _words(name))


def field_name(name: str) -> str:
    """The attribute that stands for a property: in snake_case, and nothing that means something else.

    "" where the name has no letter or digit.
    """
    field = snake(name)
    if field[:1].isdigit() or field.startswith(_PROTECTED):
        return f"field_{field}"
    return f"{field}_" if iskeyword(field) or field in _TAKEN else field


def params_class(task: str) -> str:
    """The name of the class of a task's parameters."""
    stem = pascal(task)
    return f"Task{stem}Params" if stem[:1].isdigit() else f"{stem}Params"


def _words(name: str) -> list[str]:
    return _WORD.findall(normalize("NFKC", name))

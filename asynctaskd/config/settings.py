"""Which keys are there? Each with its default, its description and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from asynctaskd.config.daemon import DaemonConfig, Section
from asynctaskd.config.values import Kind
from asynctaskd.config.wording import shown

# Those whose flags aren't called as they are.
_FLAGS = {"database.url": "--database", "dashboard.hosts": "--allow-host"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the configuration, as told to people: in the example file, `--help` and the docs.

    Attributes:
        key: the section and the name, `worker.concurrency`.
        default: its value where nothing is given; None where there is none.
        description: a sentence or two, with the unit.
        expects: what it takes, in words ("an integer from 0 to 100").
        example: a value to show where there is no default.
        secret: whether its value must never be shown.
    """

    key: str
    default: object
    description: str
    expects: str
    example: object
    secret: bool
    _from_text: Callable[[str], object]

    @property
    def section(self) -> str:
        """The section of the file it stands in."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """Its name within its section."""
        return self.key.partition(".")[2]

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"ASYNCTASKD_{self.section}_{self.name}".upper()

    @property
    def flag(self) -> str:
        """What its flag is called on the command line, where there is one."""
        if self.key in _FLAGS:
            return _FLAGS[self.key]
        return ("--log-" if self.section == "log" else "--") + self.name.replace("_", "-")

    def read(self, given: object) -> object:
        """The value of a variable's or flag's text; what isn't text is taken as it is."""
        return self._from_text(given) if isinstance(given, str) else given

    def problem(self, source: str, value: object) -> str:
        """The sentence for a value that doesn't suit, without the value where that is secret."""
        got = "" if self.secret else f", got {shown(value)}"
        return f"{self.key} {source} must be {self.expects}{got}"


def _settings_of(section: str, model: type[Section]) -> Iterator[Setting]:
    for attribute, info in model.model_fields.items():
        (kind,) = (item for item in info.metadata if isinstance(item, Kind))
        yield Setting(
            key=f"{section}.{info.alias or attribute}",
            default=info.default,
            description=info.description or "",
            expects=kind.expects,
            example=info.examples[0] if info.examples else None,
            secret=kind.secret,
            _from_text=kind.from_text,
        )


SECTIONS: Mapping[str, type[Section]] = {
    name: cast("type[Section]", info.annotation) for name, info in DaemonConfig.model_fields.items()
}
"""Every section's model by its name, in the order of the example file."""

SETTINGS: Mapping[str, Setting] = {
    setting.key: setting for section, model in SECTIONS.items() for setting in _settings_of(section, model)
}
"""Every key by its full name, in the order of the example file."""

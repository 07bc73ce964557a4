"""The classes of parameters, by datamodel-code-generator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datamodel_code_generator import LiteralType, generate
from datamodel_code_generator.enums import DataModelType, InputFileType, TargetPydanticVersion
from datamodel_code_generator.format import Formatter, PythonVersion

from asynctaskd.definitions.codegen.schemas import Definitions

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def write_models(definitions: Definitions, header: str, imports: Sequence[str]) -> str:
    """The source of a module with one class for each object, and with further imports (`abc.ABC`)."""
    with _no_settings() as settings:
        source = _generated(definitions, header, imports, settings)
    return _with_defaults(source, definitions.defaults)


@contextmanager
def _no_settings() -> Iterator[Path]:
    """A place without settings: those of the project that is here would change the code."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "pyproject.toml").touch()
        yield Path(folder)


def _generated(definitions: Definitions, header: str, imports: Sequence[str], settings: Path) -> str:
    source = generate(
        {"$schema": _DIALECT, "$defs": definitions.schemas},
        input_file_type=InputFileType.JsonSchema,
        output_model_type=DataModelType.PydanticV2BaseModel,
        base_class="asynctaskd.ParamsModel",
        aliases=definitions.fields,
        additional_imports=list(imports),
        custom_file_header=header,
        custom_class_name_generator=str,
        disable_timestamp=True,
        enum_field_as_literal=LiteralType.All,
        field_extra_keys={"secret"},
        formatters=[Formatter.BUILTIN],
        settings_path=settings,
        skip_root_model=True,
        strict_nullable=True,
        target_pydantic_version=TargetPydanticVersion.V2_11,
        target_python_version=PythonVersion.PY_311,
        use_annotated=True,
        use_double_quotes=True,
        use_schema_description=True,
        use_single_line_docstring=True,
        use_standard_collections=True,
        use_type_alias=True,
        use_union_operator=True,
    )
    return str(source)


def _with_defaults(source: str, defaults: Mapping[str, Any]) -> str:
    """Pydantic reads these defaults as it reads payloads, which a type checker can't know."""
    for mark, value in defaults.items():
        source = source.replace(f'"{mark}"', f"cast(Any, {value!r})")
    return source

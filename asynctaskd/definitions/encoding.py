"""How a definition's payloads and outcomes are stored: through its codec."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asynctaskd.codecs.codec import CodecError, read, written
from asynctaskd.definitions.payload import checked
from asynctaskd.definitions.text import describe_error
from asynctaskd.errors import InvalidPayloadError

if TYPE_CHECKING:
    from asynctaskd.codecs.codec import Codec
    from asynctaskd.task import Task


class Encoding:
    """A codec, and whose values it writes.

    Attributes:
        name: the codec's name.
    """

    def __init__(self, task: str, codec: Codec) -> None:
        self._task = task
        self._codec = codec
        self.name = codec.name

    def of(self, task: str) -> Encoding:
        """That of another task by the same codec."""
        return Encoding(task, self._codec)

    def encoded(self, text: str, what: str = "payload") -> str:
        """A JSON text as it is stored: a JSON string. Raises InvalidPayloadError: it can't be encoded."""
        stored = json.dumps(self.encoded_value(json.loads(text), what))
        return checked(stored.encode(), stored, f"encoded {what}")

    def decoded(self, text: str) -> str:
        """The JSON text of a payload that was stored. Raises InvalidPayloadError: it can't be decoded."""
        try:
            return json.dumps(self.decoded_value(json.loads(text), "payload"))
        except CodecError as error:
            raise InvalidPayloadError(f"task {self._task!r}: {error}") from None
        # What the database takes, or a codec gives, may be more than JSON and Python can hold.
        except (ValueError, TypeError, RecursionError) as error:
            raise InvalidPayloadError(
                f"task {self._task!r}: the payload can't be read as JSON ({type(error).__name__})"
            ) from None

    def encoded_value(self, value: Any, what: str) -> str:
        """A value of JSON as the text that is stored."""
        try:
            return written(self._codec, value, self._about(what))
        except Exception as error:  # a codec of the user's own may raise anything
            why = str(error) if isinstance(error, CodecError) else describe_error(error)
            raise InvalidPayloadError(f"task {self._task!r}: {why}") from error

    def decoded_value(self, stored: Any, what: str) -> Any:
        """A value of JSON that was stored. Raises CodecError."""
        try:
            return read(self._codec, stored, self._about(what))
        except CodecError:
            raise
        except Exception as error:  # as above
            raise CodecError(f"the {what} can't be decoded: {describe_error(error)}") from error

    def read(self, task: Task) -> Task:
        """A record with all that can be decoded here; the rest stays as it is stored."""
        return replace(
            task,
            payload=self.legible(task.payload, "payload"),
            result=self.legible(task.result, "result"),
            last_error=self.legible(task.last_error, "error"),
            progress=self.legible(task.progress, "progress"),
        )

    def legible(self, stored: Any, what: str) -> Any:
        """A value of JSON that was stored, as it is where it can't be decoded here."""
        if not isinstance(stored, str) or not stored.startswith(f"{self.name}:"):
            return stored
        try:
            return self.decoded_value(stored, what)
        except CodecError:
            return stored

    def _about(self, what: str) -> str:
        return f"{what} of {self._task}"

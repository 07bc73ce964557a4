"""What a codec is, the two simplest ones, and the text that stands in a row for what one has encoded."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, Protocol, runtime_checkable


class CodecError(Exception):
    """What is stored can't be decoded: it was written in another way, with another key, or was changed."""


@runtime_checkable
class Codec(Protocol):
    """Turns what JSON can hold into bytes, and back.

    Attributes:
        name: what the stored texts begin with, such as `msgpack`.
        takes_plain: whether a payload that isn't encoded is read as it is, as one is that was enqueued
            before its definition had the codec.
    """

    name: str
    takes_plain: bool

    def encode(self, value: Any, about: str) -> bytes:
        """Write a value: None, bool, int, float, str, list or dict.

        `about` says what it is: `payload of charge`, or `result`, `error` or `progress`. It is the same where
        it is decoded.
        """
        ...

    def decode(self, data: bytes, about: str) -> Any:
        """Read it back. Raises CodecError, whose message holds nothing of the value."""
        ...


class JsonCodec:
    """JSON as bytes: what other codecs encrypt or sign unless told otherwise."""

    name = "json"
    takes_plain = True

    def encode(self, value: Any, about: str) -> bytes:
        """Write it as JSON."""
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

    def decode(self, data: bytes, about: str) -> Any:
        """Read JSON."""
        try:
            return json.loads(data)
        except ValueError:
            raise CodecError(f"the {about} isn't JSON") from None


class NullCodec:
    """Drops every value and reads `{}`: for tests that don't look at them."""

    name = "null"
    takes_plain = True

    def encode(self, value: Any, about: str) -> bytes:
        """Nothing."""
        return b""

    def decode(self, data: bytes, about: str) -> Any:
        """An empty object."""
        return {}


def written(codec: Codec, value: Any, about: str) -> str:
    """The text that is stored: the codec's name and the bytes in base64, `msgpack:gaFhAQ==`."""
    return f"{codec.name}:{base64.b64encode(codec.encode(value, about)).decode()}"


def read(codec: Codec, stored: Any, about: str) -> Any:
    """What a stored value was before it was written.

    Raises:
        CodecError: it was written by another codec or none, or this one can't read it.
    """
    if isinstance(stored, str) and stored.startswith(f"{codec.name}:"):
        return codec.decode(_bytes(stored.removeprefix(f"{codec.name}:"), about), about)
    if codec.takes_plain:
        return stored
    raise CodecError(f"the {about} isn't encoded by {codec.name}")


def _bytes(text: str, about: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise CodecError(f"the {about} isn't base64 behind the codec's name") from None

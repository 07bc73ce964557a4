"""Keys by their ids, as configurations give them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping

from asynctaskd.codecs.codec import CodecError

_MOST = 64


def checked_keys(keys: object, sizes: Collection[int]) -> dict[str, bytes]:
    """The keys as bytes; texts are base64. Messages name ids and never keys.

    Raises:
        ValueError: there is none, an id has not 1 to 64 characters of ASCII, or a key is none of that size.
    """
    if not isinstance(keys, Mapping) or not keys:
        raise ValueError("at least one key is needed: {id: key}")
    return {_checked_id(key_id): _checked_key(key_id, key, sizes) for key_id, key in keys.items()}


def with_id(key_id: str, data: bytes) -> bytes:
    """The data, with the id of the key in front that was used."""
    return bytes([len(key_id)]) + key_id.encode() + data


def split_id(data: bytes, about: str) -> tuple[str, bytes]:
    """The id of the key, and the data behind it.

    Raises:
        CodecError: there is no id in front.
    """
    end = 1 + data[0] if data else 0
    try:
        key_id = data[1:end].decode("ascii")
    except UnicodeDecodeError:
        key_id = ""
    if not key_id or len(data) < end:
        raise CodecError(f"the {about} doesn't say which key it needs")
    return key_id, data[end:]


def key_of(keys: Mapping[str, bytes], key_id: str, about: str) -> bytes:
    """The key of that id. Raises CodecError where it isn't known."""
    try:
        return keys[key_id]
    except KeyError:
        raise CodecError(f"the {about} needs the key {key_id!r}, which isn't known here") from None


def _checked_id(key_id: object) -> str:
    if not isinstance(key_id, str) or not key_id.isascii() or not 1 <= len(key_id) <= _MOST:
        raise ValueError(f"a key's id must have 1 to {_MOST} characters of ASCII, got {key_id!r}")
    return key_id


def _checked_key(key_id: str, key: bytes | str, sizes: Collection[int]) -> bytes:
    try:
        raw = base64.b64decode(key, validate=True) if isinstance(key, str) else bytes(memoryview(key))
    except (binascii.Error, TypeError):  # bytes() alone would make so many zeros of a number
        raise ValueError(f"key {key_id!r} must be bytes, or text in base64") from None
    if len(raw) not in sizes:
        wanted = " or ".join(map(str, sizes))
        raise ValueError(f"key {key_id!r} must have {wanted} bytes, got {len(raw)}")
    return raw

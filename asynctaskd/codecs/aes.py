"""Encryption: AES in Galois/Counter Mode, with keys that can be rotated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from asynctaskd.codecs.codec import Codec, CodecError, JsonCodec
from asynctaskd.codecs.keys import checked_keys, key_of, split_id, with_id

_NONCE = 12
_SIZES = (16, 24, 32)


class AesGcmCodec:
    """Encrypts what it writes, and notices what was changed or moved to another task.

    Args:
        keys: key id → key of 16, 24 or 32 bytes, or that in base64. The first one encrypts, all of them
            decrypt: to rotate, put the new one in front and take the old one away once nothing needs it.
        inner: what writes the bytes that are encrypted.

    Raises:
        ValueError: a key is wrong; the message names its id.
        ImportError: `cryptography` isn't installed (`pip install 'asynctaskd[crypto]'`).
    """

    name = "aes-gcm"

    def __init__(
        self, keys: Mapping[str, bytes | str], *, inner: Codec | None = None, takes_plain: bool = False
    ) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415  (an extra)

        self._keys = checked_keys(keys, _SIZES)
        self._current = next(iter(self._keys))
        self._cipher = AESGCM
        self._inner = inner or JsonCodec()
        self.takes_plain = takes_plain

    def encode(self, value: Any, about: str) -> bytes:
        """The id of the key, the nonce and the ciphertext; `about` is authenticated with it."""
        nonce = os.urandom(_NONCE)
        cipher = self._cipher(self._keys[self._current])
        written = self._inner.encode(value, about)
        return with_id(self._current, nonce + cipher.encrypt(nonce, written, about.encode()))

    def decode(self, data: bytes, about: str) -> Any:
        """Decrypt. Raises CodecError where the key isn't known, or doesn't fit what is there."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415

        key_id, rest = split_id(data, about)
        cipher = self._cipher(key_of(self._keys, key_id, about))
        try:
            written = cipher.decrypt(rest[:_NONCE], rest[_NONCE:], about.encode())
        except (InvalidTag, ValueError):
            raise CodecError(f"the {about} can't be decrypted with the key {key_id!r}") from None
        return self._inner.decode(written, about)

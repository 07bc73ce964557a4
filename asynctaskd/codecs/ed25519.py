"""Signatures: only those who hold the private key can enqueue what workers run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynctaskd.codecs.codec import Codec, CodecError, JsonCodec
from asynctaskd.codecs.keys import checked_keys, key_of, split_id, with_id

_SIZE = 32
_SIGNATURE = 64


class SignedCodec:
    """Signs what it writes with ed25519 and refuses what isn't signed, or not by a known key.

    Payloads are signed, each for the name of its task; results, errors and progress aren't, so that workers
    need no private key. It doesn't keep somebody who can write to the table from enqueuing what was signed
    once more.

    Args:
        public_keys: key id → public key of 32 bytes, or that in base64: whose signatures are accepted.
        sign_with: the id of one of them, and its private key: without it nothing can be written here.
        inner: what writes the bytes that are signed.

    Raises:
        ValueError: a key is wrong; the message names its id.
        ImportError: `cryptography` isn't installed (`pip install 'asynctaskd[crypto]'`).
    """

    name = "signed"
    takes_plain = False

    def __init__(
        self,
        public_keys: Mapping[str, bytes | str],
        *,
        sign_with: tuple[str, bytes | str] | None = None,
        inner: Codec | None = None,
    ) -> None:
        from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  (an extra)

        self._keys = checked_keys(public_keys, (_SIZE,))
        self._public = ed25519.Ed25519PublicKey
        self._inner = inner or JsonCodec()
        self._signer: tuple[str, ed25519.Ed25519PrivateKey] | None = None
        if sign_with is not None:
            [(key_id, private)] = checked_keys(dict([sign_with]), (_SIZE,)).items()
            key = ed25519.Ed25519PrivateKey.from_private_bytes(private)
            if self._keys.get(key_id) != key.public_key().public_bytes_raw():
                raise ValueError(f"the private key {key_id!r} doesn't belong to the public key of that id")
            self._signer = key_id, key

    def encode(self, value: Any, about: str) -> bytes:
        """The id of the key, the signature and what was signed. Raises CodecError without a private key."""
        if not _is_payload(about):
            return self._inner.encode(value, about)
        if self._signer is None:
            raise CodecError(f"the {about} can't be signed here: there is no private key (sign_with)")
        key_id, key = self._signer
        written = self._inner.encode(value, about)
        return with_id(key_id, key.sign(_signed(written, about)) + written)

    def decode(self, data: bytes, about: str) -> Any:
        """Verify and read. Raises CodecError where the signature isn't one of a known key for this task."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

        if not _is_payload(about):
            return self._inner.decode(data, about)
        key_id, rest = split_id(data, about)
        signature, written = rest[:_SIGNATURE], rest[_SIGNATURE:]
        key = self._public.from_public_bytes(key_of(self._keys, key_id, about))
        try:
            key.verify(signature, _signed(written, about))
        except InvalidSignature:
            raise CodecError(f"the signature of the {about} isn't one of the key {key_id!r}") from None
        return self._inner.decode(written, about)


def _is_payload(about: str) -> bool:
    return about.startswith("payload of ")


def _signed(written: bytes, about: str) -> bytes:
    return about.encode() + b"\0" + written

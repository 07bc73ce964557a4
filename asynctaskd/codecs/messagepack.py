"""MessagePack: smaller than JSON, where SQL needn't read it."""

from __future__ import annotations

from typing import Any

from asynctaskd.codecs.codec import CodecError


class MsgpackCodec:
    """Writes MessagePack.

    Raises:
        ImportError: `msgpack` isn't installed (`pip install 'asynctaskd[msgpack]'`).
    """

    name = "msgpack"
    takes_plain = True

    def __init__(self) -> None:
        import msgpack  # noqa: PLC0415  (an extra)

        self._msgpack: Any = msgpack

    def encode(self, value: Any, about: str) -> bytes:
        """Write it."""
        packed: bytes = self._msgpack.packb(value)
        return packed

    def decode(self, data: bytes, about: str) -> Any:
        """Read it."""
        try:
            return self._msgpack.unpackb(data, strict_map_key=False)
        except Exception:  # noqa: BLE001  (it has many)
            raise CodecError(f"the {about} isn't MessagePack") from None

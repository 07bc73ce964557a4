"""HOW IS IT WRITTEN? Codecs for payloads, results, error texts and progress, chosen by definition or App.

Without one, all of these are stored as JSON that SQL can read.
"""

from asynctaskd.codecs.aes import AesGcmCodec
from asynctaskd.codecs.codec import Codec, CodecError, JsonCodec, NullCodec
from asynctaskd.codecs.ed25519 import SignedCodec
from asynctaskd.codecs.messagepack import MsgpackCodec

__all__ = ["AesGcmCodec", "Codec", "CodecError", "JsonCodec", "MsgpackCodec", "NullCodec", "SignedCodec"]

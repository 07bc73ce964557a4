"""What codecs write, and what they refuse to read."""

from __future__ import annotations

import base64
import json

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from asynctaskd import App, InvalidPayloadError
from asynctaskd.codecs import AesGcmCodec, CodecError, JsonCodec, MsgpackCodec, NullCodec, SignedCodec
from asynctaskd.codecs.codec import read, written

OLD, NEW = b"o" * 32, base64.b64encode(b"n" * 16).decode()
ABOUT = "payload of charge"


def signing_key(seed: bytes = b"s" * 32) -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return seed, key.public_key().public_bytes_raw()


def signed(**options) -> SignedCodec:
    private, public = signing_key()
    return SignedCodec({"a": public}, **{"sign_with": ("a", private)} | options)


ALL = [JsonCodec(), MsgpackCodec(), AesGcmCodec({"k": OLD}), signed(), signed(inner=AesGcmCodec({"k": OLD}))]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("codec", ALL, ids=lambda codec: codec.name)
@given(value=values)
def test_what_is_written_is_read_back(codec, value):
    text = written(codec, value, ABOUT)
    assert text.startswith(f"{codec.name}:")
    assert read(codec, text, ABOUT) == value


def test_null_keeps_nothing():
    assert written(NullCodec(), {"a": 1}, ABOUT) == "null:"
    assert read(NullCodec(), "null:", ABOUT) == {}


def test_plain_values_are_read_only_where_that_is_allowed():
    assert read(MsgpackCodec(), {"a": 1}, ABOUT) == {"a": 1}
    assert read(AesGcmCodec({"k": OLD}, takes_plain=True), {"a": 1}, ABOUT) == {"a": 1}
    for codec in (AesGcmCodec({"k": OLD}), signed()):
        with pytest.raises(CodecError, match=f"payload of charge isn't encoded by {codec.name}"):
            read(codec, {"a": 1}, ABOUT)


def test_nothing_of_what_is_encrypted_can_be_seen_and_no_two_are_alike():
    codec = AesGcmCodec({"k": OLD})
    one, other = (written(codec, {"card": "4111"}, ABOUT) for _ in range(2))
    assert one != other
    assert b"4111" not in base64.b64decode(one.partition(":")[2])


def test_keys_are_rotated_by_putting_the_new_one_in_front():
    before = AesGcmCodec({"old": OLD})
    during = AesGcmCodec({"new": NEW, "old": OLD})
    after = AesGcmCodec({"new": NEW})
    text = written(before, 1, ABOUT)
    assert read(during, text, ABOUT) == 1
    assert read(after, written(during, 2, ABOUT), ABOUT) == 2
    with pytest.raises(CodecError, match="needs the key 'old', which isn't known here"):
        read(after, text, ABOUT)


@pytest.mark.parametrize("codec", [AesGcmCodec({"k": OLD}), signed()], ids=lambda codec: codec.name)
@pytest.mark.parametrize("change", ["bit", "cut", "empty", "name", "base64"])
def test_what_was_changed_or_moved_to_another_task_is_refused(codec, change):
    text = written(codec, {"amount": 1}, ABOUT)
    name, _, data = text.partition(":")
    raw = bytearray(base64.b64decode(data))
    raw[-1] ^= 1
    changed = {
        "bit": f"{name}:{base64.b64encode(raw).decode()}",
        "cut": f"{name}:{base64.b64encode(raw[:9]).decode()}",
        "empty": f"{name}:",
        "name": text,
        "base64": f"{name}:%%%",
    }[change]
    about = "payload of refund" if change == "name" else ABOUT
    with pytest.raises(CodecError, match=f"the {about}|the signature of the {about}"):
        read(codec, changed, about)


def test_who_has_no_private_key_reads_and_cannot_write():
    _, public = signing_key()
    reader = SignedCodec({"a": public})
    text = written(signed(), {"a": 1}, ABOUT)
    assert read(reader, text, ABOUT) == {"a": 1}
    with pytest.raises(CodecError, match="can't be signed here: there is no private key"):
        written(reader, {"a": 1}, ABOUT)
    assert read(reader, written(reader, 3, "result of charge"), "result of charge") == 3


def test_a_signature_of_a_key_that_isnt_known_is_refused():
    other_private, other_public = signing_key(b"x" * 32)
    text = written(SignedCodec({"a": other_public}, sign_with=("a", other_private)), 1, ABOUT)
    with pytest.raises(CodecError, match="isn't one of the key 'a'"):
        read(signed(), text, ABOUT)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AesGcmCodec({}), "at least one key"),
        (lambda: AesGcmCodec({"k": b"short"}), "key 'k' must have 16 or 24 or 32 bytes, got 5"),
        (lambda: AesGcmCodec({"k": "%%"}), "key 'k' must be bytes, or text in base64"),
        (lambda: AesGcmCodec({"k": None}), "key 'k' must be bytes, or text in base64"),
        (lambda: AesGcmCodec({"k": 32}), "key 'k' must be bytes, or text in base64"),
        (lambda: AesGcmCodec(OLD), "at least one key is needed: {id: key}"),
        (lambda: AesGcmCodec({1: OLD}), "1 to 64 characters of ASCII, got 1"),
        (lambda: AesGcmCodec({"": OLD}), "1 to 64 characters of ASCII"),
        (lambda: SignedCodec({"a": OLD}, sign_with=("a", OLD)), "doesn't belong to the public key"),
        (lambda: SignedCodec({"a": signing_key()[1]}, sign_with=("b", OLD)), "doesn't belong"),
    ],
)
def test_a_wrong_key_is_named_by_its_id_and_never_shown(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "ooo" not in str(raised.value)


@pytest.mark.parametrize(
    "stored",
    [
        "[" * 100_000 + "]" * 100_000,
        "9" * 5_000,
        json.dumps("msgpack:" + base64.b64encode(msgpack.packb({"a": b"bytes"})).decode()),
    ],
    ids=["too deep", "too many digits", "not JSON's"],
)
def test_a_payload_that_json_cant_hold_is_one_that_doesnt_fit(stored):
    app = App(codec=MsgpackCodec())

    @app.task
    async def charge(payload: dict) -> None: ...

    with pytest.raises(InvalidPayloadError, match="task 'charge': the payload can't be read as JSON"):
        charge.bind(stored)

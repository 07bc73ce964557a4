"""Who sent this? A signature over a request's body and the time, for a secret that both sides know.

`Asynctaskd-Signature: t=1750000000,v1=5257a8…`: `t` is the time in seconds since 1970, `v1` the HMAC-SHA256
of `t`, a full stop and the body, in hexadecimal. There may be several `v1`, while a secret is being replaced.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from datetime import timedelta

from pydantic import SecretStr

from asynctaskd.definitions import rules
from asynctaskd.errors import InvalidInputError, InvalidSignatureError

_SIGNATURE = re.compile(r"t=([0-9]{1,12})((?:,v1=[0-9a-f]{64})+)")


def sign(secret: str | SecretStr, body: bytes, at: int) -> str:
    """The header's value for a body that is sent at that time. Raises InvalidInputError: an empty secret."""
    return f"t={at},v1={_mac(secret, body, at)}"


def verify_signature(
    secret: str | SecretStr,
    signature: str | None,
    body: bytes,
    *,
    tolerance: str | timedelta = "5m",
    now: float | None = None,
) -> None:
    """Make sure that a request comes from a worker that knows the secret; for whoever receives it.

    Args:
        secret: what `http_task` was given.
        signature: the header `Asynctaskd-Signature`, or None where there is none.
        body: the body as it came, before anything reads it as JSON.
        tolerance: how far the time of the signature may be from this machine's.
        now: the time in seconds since 1970, for tests.

    Raises:
        InvalidSignatureError: it is missing or malformed, too old, or not of this body and secret.
        InvalidInputError: the secret is empty.
    """
    signed = _SIGNATURE.fullmatch(signature or "")
    if signed is None:
        raise InvalidSignatureError("the request has no well-formed Asynctaskd-Signature: don't trust it")
    at = int(signed[1])
    wanted = _mac(secret, body, at)
    # All of them are compared, each in constant time.
    if not sum(hmac.compare_digest(wanted, given) for given in signed[2].split(",v1=")[1:]):
        raise InvalidSignatureError("the request's signature is not that of its body and this secret")
    _check_age(at, time.time() if now is None else now, rules.duration("tolerance", tolerance))


def _check_age(at: int, now: float, tolerance: timedelta) -> None:
    if abs(now - at) > tolerance.total_seconds():
        raise InvalidSignatureError(
            f"the request was signed {now - at:.0f} s ago, which is more than the tolerance; "
            "it may be an old one sent again, or a clock is wrong"
        )


def _mac(secret: str | SecretStr, body: bytes, at: int) -> str:
    key = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    if not key:
        raise InvalidInputError("the secret of a signature is empty: anybody could sign with it")
    return hmac.new(key.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()

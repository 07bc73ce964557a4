"""How safe the way to a server is: TLS that proves who answers, wherever that isn't this machine.

What `sslmode` in the URL, or PGSSLMODE, asks for by name holds. Where neither does, a host that isn't local
has to prove by its certificate that it is the one named (`verify-full`). The authority is `sslrootcert` of
the URL, PGSSLROOTCERT or ~/.postgresql/root.crt, as everywhere; where there is none, those that the system
trusts. All files are read for each new connection.
"""

from __future__ import annotations

import os
import ssl
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from asynctaskd.errors import ConfigError

_PROVEN = "verify-full"
# The server's own directory for sockets, where no host is named.
_SOCKET = "/"
_SYSTEM = "system"
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", _PROVEN)
_FILES = {
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "sslcrl": "PGSSLCRL",
}

# What OpenSSL says of a certificate that it doesn't accept, by number, and what helps.
_OF_ANOTHER_NAME = {62, 64}
_EXPIRED = {9, 10}
_BY_NAME = (
    "or ask for less by name: sslmode=require in the URL encrypts, but doesn't prove who answers "
    "(docs/how-to/security.md)"
)


class UntrustedServerError(Exception):
    """A server isn't talked to, since it offers no TLS or doesn't prove who it is; says what to do."""


def tls_for(dsn: str, host: str) -> ssl.SSLContext | str | None:
    """What asyncpg needs to be told of TLS with that host of a URL: a mode, a context, or nothing."""
    mode = _mode(dsn)
    if mode is None and is_local(host):
        return None
    if _given(dsn, "sslrootcert", "PGSSLROOTCERT") == _SYSTEM:
        return _trusted_by_the_system(dsn)
    if (mode or _PROVEN) == _PROVEN and not _has_own_authority(dsn):
        return _trusted_by_the_system(dsn)
    return mode or _PROVEN


def require_usable_tls(dsn: str) -> None:
    """Check what a URL and the environment say of TLS, so that what is wrong with it shows at the start.

    Raises:
        ConfigError: there is no such mode, or a file that is named can't be read.
    """
    try:
        mode, is_far = _mode(dsn), not all(map(is_local, named_hosts(dsn)))
    except ValueError:  # connecting tells
        return
    if mode is not None and mode not in _MODES:
        raise ConfigError(f"there is no sslmode={mode}: it must be {', '.join(_MODES[:-1])} or {_MODES[-1]}")
    if mode == "disable" or not (mode or is_far):  # no file is looked at
        return
    for parameter, variable in _FILES.items():
        path = _given(dsn, parameter, variable)
        if path is not None and path != _SYSTEM:
            _require_readable(parameter, Path(path))


def _require_readable(parameter: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{parameter}: the file {path} can't be read: {error.strerror}") from None


def weakness(dsn: str) -> str | None:
    """What a URL asks for by name that proves less than it should, in a sentence; None where it doesn't."""
    mode = _mode(dsn)
    if mode is None and _leaves_it_to_a_service(dsn):
        return "a service file names the host, and unless its sslmode does, nothing proves who answers"
    hosts = [host for host in named_hosts(dsn) if not is_local(host)]
    if mode in (None, _PROVEN) or _given(dsn, "sslrootcert", "PGSSLROOTCERT") == _SYSTEM or not hosts:
        return None
    return f"sslmode={mode} doesn't prove that {', '.join(hosts)} is who answers"


def is_local(host: str) -> bool:
    """Whether a host is this machine: a Unix socket, or the loopback interface."""
    if host.startswith(("/", "@")) or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def named_hosts(dsn: str) -> list[str]:
    """The hosts that a URL names, without ports; the server's own socket where it names none."""
    url = urlsplit(dsn)
    # In the order of asyncpg, or another host than the one that is connected to would be judged.
    named = unquote(url.netloc.rpartition("@")[2]) or _query(dsn).get("host") or os.environ.get("PGHOST")
    return [split_port(one)[0] for one in named.split(",")] if named else [_SOCKET]


def explained(error: BaseException, host: str) -> UntrustedServerError | None:
    """What went wrong with TLS, and what to do; None where it was something else."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return UntrustedServerError(
            f"the certificate of {host} isn't accepted: {error.verify_message.rstrip('.')}. "
            f"{_remedy(error.verify_code)}, {_BY_NAME}"
        )
    if isinstance(error, ConnectionError) and "rejected SSL upgrade" in str(error):
        return UntrustedServerError(
            f"{host} offers no TLS, so passwords and payloads would travel in the clear. Switch it on there "
            "(ssl = on), or say by name that the network is safe: sslmode=disable in the URL"
        )
    if isinstance(error, ssl.SSLError) and "VERSION" in (error.reason or ""):
        return UntrustedServerError(
            f"{host} speaks no TLS that is safe: 1.2 is the least. Upgrade it, or its OpenSSL"
        )
    return None


def _remedy(code: int) -> str:
    if code in _OF_ANOTHER_NAME:
        return "Name the host as its certificate does"
    if code in _EXPIRED:
        return "Renew it"
    return "Name the authority that issued it, sslrootcert=PATH in the URL"


def _mode(dsn: str) -> str | None:
    return _given(dsn, "sslmode", "PGSSLMODE")


def _leaves_it_to_a_service(dsn: str) -> bool:
    """Whether the host is that of a service file, which asyncpg reads."""
    return _given(dsn, "service", "PGSERVICE") is not None and named_hosts(dsn) == [_SOCKET]


def _has_own_authority(dsn: str) -> bool:
    given = _given(dsn, "sslrootcert", "PGSSLROOTCERT")
    return given is not None or Path(os.path.expanduser("~/.postgresql/root.crt")).exists()  # noqa: PTH111  (it may have no home)


def _trusted_by_the_system(dsn: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    certificate = _given(dsn, "sslcert", "PGSSLCERT")
    if certificate is not None:
        password = _query(dsn).get("sslpassword", "")
        context.load_cert_chain(certificate, _given(dsn, "sslkey", "PGSSLKEY"), lambda: password)
    return context


def _given(dsn: str, parameter: str, variable: str) -> str | None:
    return _query(dsn).get(parameter) or os.environ.get(variable) or None


def _query(dsn: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(urlsplit(dsn).query).items()}


def split_port(host: str) -> tuple[str, str]:
    """A host of a URL, and what is written behind its colon. IPv6 has colons of its own."""
    name, _, port = host.rpartition(":")
    if host.startswith("/") or host.endswith("]") or not name or (":" in name and not name.endswith("]")):
        return host.strip("[]"), ""
    return name.strip("[]"), port

"""Where may tasks be posted? The check of a URL against a list of hosts.

Without a list any public host will do, over HTTPS. A host that is listed by name may also be private, and
spoken to without TLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from asynctaskd.errors import InvalidDefinitionError, InvalidInputError

_NAME = re.compile(r"[a-z0-9_.-]{1,253}")

# Mapped, translated by NAT64, and the old compatible ones: an IPv4 address is in their last 32 bits.
_OF_IPV4 = [IPv6Network(network) for network in ("::ffff:0:0/96", "64:ff9b::/96", "::/96")]
_LOCAL_TRANSLATION = IPv6Network("64:ff9b:1::/48")


def checked_hosts(hosts: Iterable[str] | None) -> frozenset[str] | None:
    """A list of hosts, in lower case; IPv6 addresses without brackets.

    Raises:
        InvalidInputError: it is no list of host names; ports and wildcards don't belong there.
    """
    if hosts is None:
        return None
    if isinstance(hosts, str):
        raise InvalidInputError(f"hosts must be a list of host names, got {hosts!r}")
    return frozenset(_checked(host) for host in hosts)


def is_listed(task: str, url: str, hosts: frozenset[str] | None) -> bool:
    """Whether the URL's host is named in the list.

    Raises:
        InvalidDefinitionError: the task may not be posted to that URL; the message says why.
    """
    parts = _split(task, url)
    host = parts.hostname or ""
    listed = hosts is not None and host in hosts
    if hosts is not None and not listed:
        raise _refusal(task, f"its host {host} isn't listed: add it to App(http_hosts=[…]) or to hosts=[…]")
    if not listed and parts.scheme == "http":
        raise _refusal(task, f"http:// sends the payload unencrypted; use https://, or list the host {host}")
    if not listed and _is_private_name(host):
        raise _refusal(task, f"its host {host} isn't public: list it in App(http_hosts=[…]) or in hosts=[…]")
    return listed


def is_public(address: str) -> bool:
    """Whether an IP address is of the public Internet: neither private nor loopback nor link-local."""
    parsed = _carried(ip_address(address))
    return parsed.is_global and not parsed.is_multicast and parsed not in _LOCAL_TRANSLATION


def _carried(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that one of IPv6 leads to, where it does."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in _OF_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or address


def _checked(host: object) -> str:
    name = host.lower() if isinstance(host, str) else ""
    if not _NAME.fullmatch(name) and not _is_address(name):
        raise InvalidInputError(f"a host is a name such as api.example.org, without a port, got {host!r}")
    return name


def _split(task: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise _refusal(task, f"its url {url!r} can't be read: {error}") from None
    if not whole:
        raise _refusal(task, f"its url must be such as https://api.example.org/tasks, got {url!r}")
    if not url.isprintable():  # urlsplit passes over some of these, and httpx over none
        raise _refusal(task, f"its url holds a control character: {url!r}")
    if "@" in parts.netloc:
        raise _refusal(task, "its url holds a user or a password, which would end up in logs; use secret=")
    return parts


def _is_private_name(host: str) -> bool:
    if _is_address(host):
        return not is_public(host)
    # What another name resolves to is looked at when it is connected to.
    return host == "localhost" or host.endswith(".localhost")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _refusal(task: str, why: str) -> InvalidDefinitionError:
    return InvalidDefinitionError(f"task {task!r}: {why}")

"""Put on what a systemd unit restricts, as far as a process can do that to itself, and run a program.

    python -m tests.support.restricted UNIT PROGRAM [ARGUMENT …]

That is: its system calls (`SystemCallFilter`), writable memory that is executable
(`MemoryDenyWriteExecute`), address families, namespaces, personality and set-user-ID files, by the filters in
the kernel that systemd uses too; its limits and umask; no new privileges; and, as root, no capabilities and a
`/proc` of processes alone.
Everything else of a unit, its mounts and users and control groups above all, takes a service manager.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from ctypes.util import find_library
from pathlib import Path

from deploy.check.systemd import Settings, settings

_ALLOW, _DENY = 0x7FFF0000, 0x00050000  # the error number is added to the second
_NOT_EQUAL, _EQUAL, _GREATER, _MASKED_EQUAL = 1, 4, 6, 7

_PROT_WRITE, _PROT_EXEC, _SHM_EXEC = 2, 4, 0o100000
_CLONE_NEW = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
_SET_ID = (0o4000, 0o2000)
_LAST_FAMILY = 47
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def is_equal(argument: int, value: int) -> _Comparison:
    return _Comparison(argument, _EQUAL, value, 0)


def has_bits(argument: int, bits: int) -> _Comparison:
    return _Comparison(argument, _MASKED_EQUAL, bits, bits)


class Filter:
    """A filter of system calls; several of them all hold."""

    def __init__(self, otherwise: int) -> None:
        self._seccomp = ctypes.CDLL(find_library("seccomp"))
        self._seccomp.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._seccomp.seccomp_init(ctypes.c_uint32(otherwise)))

    def allow(self, call: str) -> None:
        self._add(_ALLOW, call)

    def deny(self, call: str, *where: _Comparison, error: int = errno.EPERM) -> None:
        self._add(_DENY + error, call, *where)

    def _add(self, action: int, call: str, *where: _Comparison) -> None:
        number = self._seccomp.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # of another architecture, or newer than the library
            return
        added = self._seccomp.seccomp_rule_add_array(
            self._context,
            ctypes.c_uint32(action),
            number,
            len(where),
            (_Comparison * len(where))(*where),
        )
        assert added == 0, (call, os.strerror(-added))

    def load(self) -> None:
        """Put it on, for good, and with it that no program gets more rights."""
        loaded = self._seccomp.seccomp_load(self._context)
        assert loaded == 0, os.strerror(-loaded)


def can_restrict() -> str | None:
    """Why that isn't possible here; None where it is."""
    if sys.platform != "linux" or find_library("seccomp") is None:
        return "there is no libseccomp here"
    if not any(Path(folder, "systemd-analyze").exists() for folder in os.get_exec_path()):
        return "there is no systemd-analyze here"
    return None


def restrict(unit: Settings) -> None:
    """Put on what the unit says."""
    if os.geteuid() == 0:
        if unit.get("ProcSubset") == ["pid"]:
            _hide_all_but_processes()
        if unit.get("CapabilityBoundingSet") == [""]:
            _drop_capabilities()
    for name, limit in (("LimitNOFILE", resource.RLIMIT_NOFILE), ("LimitCORE", resource.RLIMIT_CORE)):
        most = int(unit[name][-1])
        resource.setrlimit(limit, (most, most))
    os.umask(int(unit["UMask"][-1], 8))
    # All are made before any is put on: the last ones need system calls that the first may deny.
    for one in [*_conditions(unit), _calls(unit["SystemCallFilter"])]:
        one.load()


def _calls(lines: Sequence[str]) -> Filter:
    """`SystemCallFilter`: what the first line allows, without what those with a tilde take away."""
    allowed = set(_members("@default"))
    for line in lines:
        members = {call for name in line.removeprefix("~").split() for call in _members(name)}
        allowed = allowed - members if line.startswith("~") else allowed | members
    only = Filter(_DENY + errno.EPERM)
    for call in allowed:
        only.allow(call)
    return only


def _members(name: str) -> Iterator[str]:
    """The system calls of a group, and of the groups in it."""
    if not name.startswith("@"):
        yield name
        return
    told = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    for line in told.stdout.splitlines()[1:]:
        if member := line.partition("#")[0].strip():
            yield from _members(member)


def _conditions(unit: Settings) -> Iterable[Filter]:
    some = Filter(_ALLOW)
    if unit.get("MemoryDenyWriteExecute") == ["yes"]:
        some.deny("mmap", has_bits(2, _PROT_WRITE | _PROT_EXEC))
        some.deny("mprotect", has_bits(2, _PROT_EXEC))
        some.deny("pkey_mprotect", has_bits(2, _PROT_EXEC))
        some.deny("shmat", has_bits(2, _SHM_EXEC))
    if "RestrictAddressFamilies" in unit:
        known = {int(getattr(socket, name)) for name in unit["RestrictAddressFamilies"][-1].split()}
        for family in set(range(_LAST_FAMILY + 1)) - known:
            some.deny("socket", is_equal(0, family), error=errno.EAFNOSUPPORT)
        some.deny("socket", _Comparison(0, _GREATER, _LAST_FAMILY, 0), error=errno.EAFNOSUPPORT)
    if unit.get("RestrictNamespaces") == ["yes"]:
        for kind in _CLONE_NEW:
            some.deny("unshare", has_bits(0, kind))
            some.deny("clone", has_bits(0, kind))
        some.deny("setns")
        some.deny("clone3", error=errno.ENOSYS)  # its flags are behind a pointer
    if unit.get("LockPersonality") == ["yes"]:
        some.deny("personality", _Comparison(0, _NOT_EQUAL, 0, 0))
    if unit.get("RestrictSUIDSGID") == ["yes"]:
        for bit in _SET_ID:
            for call, argument in (
                ("chmod", 1),
                ("fchmod", 1),
                ("fchmodat", 2),
                ("mkdir", 1),
                ("mkdirat", 2),
            ):
                some.deny(call, has_bits(argument, bit))
    yield some


def _hide_all_but_processes() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _done(libc.unshare(_CLONE_NEWNS))
    _done(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))
    _done(libc.mount(b"proc", b"/proc", b"proc", 0, b"subset=pid,hidepid=invisible"))


def _drop_capabilities() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails for those that the kernel doesn't know


def _done(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    restrict(settings(Path(sys.argv[1])))
    os.execvp(sys.argv[2], sys.argv[2:])

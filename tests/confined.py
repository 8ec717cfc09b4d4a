"""Runs a program under the system call filter of a systemd unit: confined.py FILTER COMMAND...

FILTER is JSON: `calls`, the names of the allowed ones, and `families`, the allowed address families. Memory is never
both writable and executable, as under `MemoryDenyWriteExecute=`. What is not allowed fails with EPERM.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import sys

ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EQUAL, MASKED_EQUAL = 4, 7
SHM_EXEC = 0o100000


class Argument(ctypes.Structure):
    _fields_ = [
        ("position", ctypes.c_uint),
        ("compare", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def confine(calls: list[str], families: list[str]) -> None:
    """Allow these system calls and no others, to this process and all that it becomes."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ERRNO | errno.EPERM))

    def allow(name: str, *arguments: Argument) -> None:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # others are not known on this machine
            array = (Argument * len(arguments))(*arguments)
            assert seccomp.seccomp_rule_add_array(context, ALLOW, number, len(arguments), array) == 0, name

    def never(position: int, bit: int) -> Argument:
        return Argument(position, MASKED_EQUAL, bit, 0)

    conditional = {
        "socket": [Argument(0, EQUAL, getattr(socket, family)) for family in families],
        "mmap": [never(2, mmap.PROT_EXEC), never(2, mmap.PROT_WRITE)],
        "mprotect": [never(2, mmap.PROT_EXEC)],
        "pkey_mprotect": [never(2, mmap.PROT_EXEC)],
        "shmat": [never(2, SHM_EXEC)],
    }
    for name in calls:
        for condition in conditional.get(name, [None]):
            allow(name, *([condition] if condition else []))
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    confine(**json.loads(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  a shell would be confined too

"""Runs a program under the system call filter of a systemd unit: confined.py FILTER COMMAND...

FILTER is JSON: `calls` and `families` are the allowed system calls and address families. Memory is
never both writable and executable, as with `MemoryDenyWriteExecute=`. All else fails with EPERM.
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


class Condition(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def unset(argument: int, bit: int) -> Condition:
    return Condition(argument, MASKED_EQUAL, bit, 0)


def confine(calls: list[str], families: list[str]) -> None:
    """Allow only these system calls in this process and its successors."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ERRNO | errno.EPERM))
    sockets = [[Condition(0, EQUAL, getattr(socket, family), 0)] for family in families]
    conditions = {
        "socket": sockets,
        "mmap": [[unset(2, mmap.PROT_EXEC)], [unset(2, mmap.PROT_WRITE)]],
        "mprotect": [[unset(2, mmap.PROT_EXEC)]],
        "pkey_mprotect": [[unset(2, mmap.PROT_EXEC)]],
        "shmat": [[unset(2, SHM_EXEC)]],
    }
    for name in calls:
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # not on this architecture
            continue
        for each in conditions.get(name, [[]]):
            array = (Condition * len(each))(*each)
            rule = (context, ALLOW, number, len(each), array)
            assert seccomp.seccomp_rule_add_array(*rule) == 0, name
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    confine(**json.loads(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  no shell

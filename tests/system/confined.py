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


class Condition(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


def confine(calls: list[str], families: list[str]) -> None:
    """Allow only these system calls in this process and its successors."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ERRNO | errno.EPERM))
    not_executable, not_writable = (
        Condition(2, MASKED_EQUAL, bit, 0) for bit in (mmap.PROT_EXEC, mmap.PROT_WRITE)
    )
    rules: dict[str, list[list[Condition]]] = {
        **{name: [[]] for name in calls},
        "socket": [[Condition(0, EQUAL, getattr(socket, family), 0)] for family in families],
        "mmap": [[not_executable], [not_writable]],
        "mprotect": [[not_executable]],
    }
    for name, alternatives in rules.items():
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        for each in alternatives if number >= 0 else ():  # others are of another architecture
            rule = (context, ALLOW, number, len(each), (Condition * len(each))(*each))
            assert seccomp.seccomp_rule_add_array(*rule) == 0, name
    assert seccomp.seccomp_load(context) == 0


if __name__ == "__main__":
    confine(**json.loads(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  no shell

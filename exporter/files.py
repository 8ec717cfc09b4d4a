"""Reads files that an administrator names, and recognizes the limit of open files."""

import errno
import os
import stat
from pathlib import Path


def read(path: Path, minimum: int = 1) -> bytes:
    """Return the content of a regular file with a minimum number of bytes.

    Raises:
        OSError: also for a file that is too short, and for a pipe or a terminal: it would block.
    """
    flags = os.O_NONBLOCK | os.O_NOCTTY
    with open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        content = file.read()
    if len(content) < minimum:
        raise OSError(errno.EINVAL, "empty file")
    return content


def open_files_hint(error: BaseException | None) -> str:
    """Return what to do if an error is due to the limit of open files; empty for other errors."""
    reached = getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE)
    try:  # the resolver of the C library does not tell
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        reached = True
    return "raise the limit of open files of the exporter, such as LimitNOFILE" if reached else ""

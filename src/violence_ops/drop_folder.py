"""A folder that others write to: which names in it are left alone, and how its files are reached without following a link.

Whoever may write there can exchange a folder for a link between two looks at it, so a path that was checked proves nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoFile(OSError):
    """A link, a pipe or the like lies where a file was."""


def is_hidden(name: str) -> bool:
    """Whether a name belongs to nobody but its maker, such as the temporary file of an upload or the lock file of an editor."""
    return name.startswith(".") and not name.startswith("..")


@contextmanager
def opened(root: Path, folder: Path) -> Iterator[Path]:
    """Another path of `folder`, which is `root` or lies below it, that leads there for the block whatever takes its place.

    No link below `root` is followed. Raises FileNotFoundError if a folder on the way is gone, or is a link or a file by now.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in folder.relative_to(root).parts:
            outer, descriptor = descriptor, _open_below(descriptor, name)
            os.close(outer)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def read_text(path: Path, most: int) -> str:
    """The UTF-8 text of a regular file of at most `most` characters. Follows no link and waits for no pipe: raises NoFile, or another
    OSError, also of what is longer."""
    with open(path, encoding="utf-8-sig", opener=_as_it_is) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NoFile(errno.EINVAL, "not a regular file", str(path))
        text = file.read(most + 1)
    if len(text) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return text


def sha256(path: Path) -> str:
    """The SHA-256 of a regular file's bytes, in hex. Follows no link and waits for no pipe: raises NoFile, or another OSError."""
    with open(path, "rb", opener=_as_it_is) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NoFile(errno.EINVAL, "not a regular file", str(path))
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_below(descriptor: int, name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise FileNotFoundError(errno.ENOENT, "no folder any more", name) from error
        raise


def _as_it_is(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NoFile(*error.args, path) from error
        raise

"""A lock on an open file, held by one process until that file is closed."""

from __future__ import annotations

import os
import sys


def lock(file: int) -> None:
    """Take the lock of an open file.

    Args:
        file: file descriptor, open for writing.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    if sys.platform == "win32":
        import msvcrt

        # Windows locks bytes, and no other process can read them: take one far behind the content.
        position = os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, 2**30, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from None
        finally:
            os.lseek(file, position, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

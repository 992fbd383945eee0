"""Write a file whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[BufferedRandom]:
    """Open a temporary file beside ``path``, and rename it to ``path`` at the end.

    After an error, an interrupt or a kill, the old file is still there, unchanged.
    """
    temporary = Path(f"{path}.tmp")
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut may leave an empty file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

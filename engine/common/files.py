"""Files that are written whole or not at all, and locks between processes."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml
from pydantic_core import from_json

from model_zoo.atomic import written_whole

from .errors import UserError
from .schema import check

LARGEST = 64 * 2**20  # bytes


def read_json(path: Path, form: Any = Any, advice: str = "delete or restore it") -> Any:
    """Read a JSON file.

    Args:
        form: what the code reads of it, see ``schema.check``.
        advice: how to mend a file that is damaged.

    Returns:
        The plain content. It is nested at most 200 deep.

    Raises:
        UserError: it cannot be read, or its content is not of the form.
    """
    try:
        content = from_json(read_bytes(path))
    except ValueError as error:
        place = re.search(r"line \d+ column \d+", str(error))
        raise UserError(f"{path}: is no JSON at {place and place[0]}; {advice}") from None
    check(path, content, form, advice)
    return content


def read_if_whole(path: Path, form: Any) -> dict[str, Any]:
    """Read a mapping from a JSON file; it is empty if the file is missing or damaged."""
    try:
        return read_json(path, form)
    except UserError:
        return {}


def read_bytes(path: Path) -> bytes:
    """Read a file of settings or results.

    Raises:
        UserError: it cannot be read, or is too large to be one.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise UserError(f"{path}: has {size:,} bytes, too many for such a file")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Raise a UserError with the reason if what is written inside cannot be; ``what`` names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: cannot be written ({error.strerror})") from None


def write_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name, and then rename it.

    Raises:
        UserError: it cannot be written. The file is as it was before.
    """
    with writing(path), written_whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON that people can read, too; errors are those of ``write_text``."""
    write_text(path, json.dumps(content, indent=2))


def write_yaml(path: Path, content: dict[str, Any]) -> None:
    """Write YAML as configurations have it, with keys in order and short values on one line."""
    text = yaml.dump(content, Dumper=_Plain, default_flow_style=None, sort_keys=False, width=100)
    write_text(path, text)


class _Plain(yaml.SafeDumper):
    """Writes no anchors, so that every entry can be read and copied alone."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def lock(file: IO, wait: bool = False) -> None:
    """Take the lock of an open file, which this process holds until the file is closed.

    Args:
        file: open for writing.
        wait: wait while another process holds the lock.

    Raises:
        BlockingIOError: another process holds the lock.
        UserError: the system or the drive has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        raise UserError("Windows has no fcntl to lock files; use Linux, macOS or WSL") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:  # some network drives
        reason = f"the drive has no locks ({error.strerror}); write to another drive"
        raise UserError(f"{file.name}: {reason}") from None


@contextmanager
def one_at_a_time(path: Path, busy: str) -> Iterator[None]:
    """Let one process after the other in here.

    Args:
        path: file whose lock they take; it is there only meanwhile.
        busy: what to print before waiting for another process.
    """
    while True:
        with open(path, "a") as file:
            try:
                lock(file)
            except BlockingIOError:
                if busy:
                    print(busy, flush=True)
                    busy = ""  # for it may come to wait again
                lock(file, wait=True)
            if not os.fstat(file.fileno()).st_nlink:
                continue  # the process before has deleted it, and others take a new one
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return

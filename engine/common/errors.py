"""The kind of error that a user can mend. It is shown as a message, never as a traceback."""

import errno
import os
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from difflib import get_close_matches


class UserError(Exception):
    """Bad input; the message says where, what was seen, and what to write instead."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean `x`?"`` for the nearest known word, or an empty string without one."""
    spelling = {str(k).lower(): k for k in known}
    near = get_close_matches(str(word).lower(), spelling, n=1, cutoff=0.6)
    return f"; did you mean `{spelling[near[0]]}`?" if near else ""


def say(error: UserError) -> None:
    """Print an error to stderr; of processes that torchrun has started, the first one that has it does."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or _is_first(str(error)):
        print(f"error: {error}", file=sys.stderr)


def _is_first(text: str) -> bool:
    from torch.distributed import TCPStore  # slow to import

    try:
        where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(*where, is_master=False, timeout=timedelta(seconds=5))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return store.add(f"error/{attempt}/{text}", 1) == 1
    except (KeyError, ValueError, RuntimeError):  # there is no store
        return True


def run_command(
    main: Callable[[], int | None],
    interrupted: str = "run_expid.py goes on with --resume",
    ranks: bool = False,
) -> None:
    """Run a command line, and end the process with its exit code.

    The code is 0 on success, 2 on bad input and 130 on Ctrl-C; errors go to stderr.

    Args:
        main: does the work.
        interrupted: says how to go on after Ctrl-C.
        ranks: torchrun can start it as several processes.
    """
    try:
        if not ranks and (size := os.environ.get("WORLD_SIZE", "1")) != "1":
            what = f"torchrun has started {size} of this process (WORLD_SIZE), which only"
            raise UserError(f"{what} run_expid.py is made for; start it with python")
        code = main() or 0
    except UserError as error:
        say(error)
        code = 2
    except BrokenPipeError:  # a pager or ``head`` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        what = error.filename or "the output"
        print(f"error: {what} cannot be written ({error.strerror})", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        code = 130
    sys.exit(code)

"""The one kind of error that a user can mend: shown as a message, never as a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Bad input. The message says where, what was seen, and what to write instead."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean `x`?"`` for the nearest known word, or an empty string."""
    near = get_close_matches(str(word), [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command line: 0 on success, 2 on bad input, 130 on Ctrl-C; errors go to stderr."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted; a run continues with --resume", file=sys.stderr)
        code = 130
    sys.exit(code)

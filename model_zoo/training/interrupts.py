"""Signals that would end the process are noted first, so that training can save its state."""

import signal
import threading
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupts:
    """Inside ``with``, a signal that would end the process is noted; behind it, the signal acts.

    A signal that was ignored stays ignored, and a second Ctrl-C acts at once. Only the main thread
    gets signals, so in other threads nothing is noted.

    Attributes:
        noted: the signal, or None.
    """

    noted: int | None = None

    def __enter__(self) -> "Interrupts":
        known = {number: signal.getsignal(number) for number in ENDING}
        main = threading.current_thread() is threading.main_thread()
        self._before = {n: h for n, h in known.items() if main and h not in (signal.SIG_IGN, None)}
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def _note(self, number: int, _: Any) -> None:
        if self.noted == number == signal.SIGINT:
            self.__exit__()
        self.noted = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.noted is not None:
            signal.raise_signal(self.noted)

"""The exit codes of commands, and what they say on stderr."""

import errno
from typing import NoReturn

import pytest

from engine.common.errors import UserError, run_command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("wrong"), 2, "error: wrong\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "error: the output cannot be written (No space left on device)\n",
        ),
        (
            OSError(errno.EFBIG, "File too large", "some.log"),
            2,
            "error: some.log cannot be written (File too large)\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted; go on\n"),
    ],
    ids=str,
)
def test_an_error_is_one_line_and_an_exit_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> NoReturn:
        raise error

    with pytest.raises(SystemExit) as ended:
        run_command(fail, interrupted="go on")
    assert ended.value.code == code and capsys.readouterr().err == message


def test_other_errors_stay_what_they_are() -> None:
    def fail() -> NoReturn:
        raise FileNotFoundError(errno.ENOENT, "missing")

    with pytest.raises(FileNotFoundError):
        run_command(fail)


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (1, 1)])
def test_a_command_says_its_exit_code(returned: int | None, code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: returned)
    assert ended.value.code == code

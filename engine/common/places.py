"""Where the project's own files are, in a checkout and after ``pip install``."""

from pathlib import Path

_ENGINE = Path(__file__).resolve().parents[1]
_SCRIPT = _ENGINE.parent / "run_expid.py"
IN_CHECKOUT = _SCRIPT.exists()

#: Folder where relative paths of a configuration start: the checkout, or else the current folder.
HOME = _ENGINE.parent if IN_CHECKOUT else Path.cwd()
#: The configurations that the project ships; a wheel holds ``config/`` as ``engine/shipped/config``.
CONFIG = _ENGINE.parent / "config" if IN_CHECKOUT else _ENGINE / "shipped" / "config"
#: What follows ``python`` to run experiments in a process of their own.
RUN_EXPID = [str(_SCRIPT)] if IN_CHECKOUT else ["-m", "engine.run"]
#: The same command as users write it, and the one that prepares data.
RUN_COMMAND = "python run_expid.py" if IN_CHECKOUT else "mos-run"
PREPARE_COMMAND = "python data/prepare.py" if IN_CHECKOUT else "mos-prepare"

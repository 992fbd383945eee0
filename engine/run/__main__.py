"""``python -m engine.run``: what ``run_expid.py`` does, without the script."""

from .command import main

main()

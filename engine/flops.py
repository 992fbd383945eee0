"""Parameters and FLOPs per sample: ``python -m engine.flops --expid TWIN_session_hopping ...``."""

from .common.errors import run_command
from .run.flops import main

if __name__ == "__main__":
    run_command(main)

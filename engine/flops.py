"""Parameters and FLOPs per sample: ``python -m engine.flops --expid TWIN_session_hopping ...``."""

from .common.errors import run_command
from .run.cpu import set_up_threads

if __name__ == "__main__":
    set_up_threads()

    from .run.flops import main  # imports torch

    run_command(main)

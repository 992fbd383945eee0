#!/usr/bin/env python
"""Run experiments: ``python run_expid.py --expid TWIN_MoS_session_hopping``."""

from engine.run.command import main

if __name__ == "__main__":
    main()

#!/usr/bin/env python
"""Tune parameters: ``python run_param_tuner.py --expid TWIN_MoS_movielens_1m``."""

from engine.tuner.command import main

if __name__ == "__main__":
    main()

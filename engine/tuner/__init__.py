"""The tuner: many runs of ``run_expid.py`` over the values of a grid, and a table of them.

``space`` reads a grid and ``checks`` refuses what cannot run. ``trial`` and ``folder`` keep what is
known on disk. ``search`` and ``optuna_search`` say what runs next, ``engines`` and ``ray_engine`` run
it, and ``scheduler`` is the loop between them. ``display`` shows it, ``leaderboard`` ends it.
"""

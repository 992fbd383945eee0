"""The tuner: many runs of ``run_expid.py`` over the values of a grid, and a table of them.

``space`` reads a grid, and ``checks`` refuses what cannot run. ``trial`` and ``folder`` keep the trials
on disk. ``search`` and ``optuna_search`` say which trial runs next. ``engines`` and ``ray_engine`` run
trials, and ``scheduler`` is the loop between the two. ``display`` shows the progress, and
``leaderboard`` writes the report.
"""

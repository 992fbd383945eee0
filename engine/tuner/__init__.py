"""The tuner: many runs of ``run_expid.py`` over the values of a grid, and a table of them.

``space`` reads a grid, and ``checks`` rejects values that cannot run. ``trial`` and ``folder`` keep the
trials on disk. ``search`` and ``optuna_search`` choose the next trial. ``engines`` and ``ray_engine``
run trials. ``scheduler`` is the loop between search and engine. ``leaderboard`` shows the progress and
writes the report.
"""

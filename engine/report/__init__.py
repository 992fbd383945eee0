"""One self-contained HTML page of all results below a folder: ``python -m engine.report RESULTS``.

Leaderboard, tables, figures, tuning, what is missing, and every run with its configuration and stages.
The page depends on nothing but the folder: the same results give the same bytes. It loads nothing.
"""

"""The tuner: many runs of ``run_expid.py`` over the parameters of a tuner file, and their table.

``space`` reads the file, ``trial`` and ``folder`` keep what is known on disk, ``search`` and
``optuna_search`` say what to run next, ``engines`` and ``ray_engine`` run it, ``scheduler`` is the
loop between them, ``display`` shows it, ``report`` ends it.
"""

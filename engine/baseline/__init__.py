"""The counting baseline: boosted trees on counts of the candidate in the history; no neural model.

A neural model that loses to it uses the history less well than counts do. ``counts`` and ``popularity`` make the
features, ``measure`` trains on them, and ``record`` keeps what came out beside the results.
"""

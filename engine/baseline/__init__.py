"""The counting baseline: boosted trees on counts of the candidate in the history; no neural model.

A neural model that loses to it has not used the history. ``counts`` and ``popularity`` make the
features, ``measure`` trains on them, and ``record`` keeps what came out beside the results.
"""

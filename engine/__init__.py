"""Everything around a model: configuration, data, experiments, measurements.

torch's OpenMP (libgomp in its wheels for Linux) reads its environment when torch is first imported, so
this comes before. By default its threads spin for milliseconds while they wait for each other; where
another job has a core, every one of a model's many small operations then waits for a turn of the
scheduler. Threads that sleep at once are slow to wake (measured on 2 idle cores: the selective scan
takes 3 times as long). So they spin about as long as the gap between two operations.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

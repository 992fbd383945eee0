"""Everything around a model: configuration, data, experiments, measurements.

OpenMP reads its environment when torch is first imported, so this comes before. By default its
threads spin while they wait for each other; where another job has a core, every one of a model's many
small operations then waits for a turn of the scheduler. Threads that sleep do not (measured on 2 busy
cores: TWIN's train step 4x, TWIN_MoS's 10x faster).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

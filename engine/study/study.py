"""One call of a study, from its arguments to its exit code."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..analysis.artefacts import write_artefacts
from ..analysis.probe import load_trained, probe
from ..files import write_json
from ..parameters import load
from ..tuner.engines import CPU, LocalEngine
from ..tuner.folder import Folder
from ..tuner.report import exit_code
from ..tuner.space import Space, data_hash
from ..tuner.trial import DONE, FAILED
from ..tuner.tune import require_devices, run_all
from .experiments import plan
from .queue import ModelStudy, StudySearch, seeded_command
from .spaces import model_space
from .store import Store


def study(
    experiment: str,
    dataset_id: str,
    root: Path,
    config: Path,
    output: Path,
    seeds: Sequence[int],
    budget: int = 3,
    backbones: Sequence[str] | None = None,
    changes: dict[str, Any] | None = None,
    gpus: Sequence[int] = (CPU,),
    per_gpu: int = 1,
    data_root: Path | None = None,
    queue: Path | None = None,
) -> int:
    """Run what an experiment lacks, and write results, tables and figures; returns the exit code.

    Args:
        experiment: a key of ``EXPERIMENTS``.
        dataset_id: the data set; experiments ``<model>_<dataset_id>`` are in ``config``.
        root: the repository, where ``run_expid.py`` is and relative paths start.
        config: configuration directory; ``tuner/<model>_<dataset_id>.yaml`` in it has the grids.
        output: folder of results, see ``store.py``.
        seeds: of each configuration; the same for all, so that runs pair up.
        budget: tuning trials of each model; 1 takes the configuration as it is.
        backbones: only these; None is all.
        changes: keys set in every configuration.
        gpus: CUDA devices; -1 is the CPU.
        per_gpu: runs at a time on each.
        data_root: folder of the data sets, in place of the configuration's.
        queue: folder of checkpoints, logs and what was killed, by data set; by default
            ``checkpoints/study/<name of output>`` in ``root``.

    Raises:
        UserError: bad input; nothing has been started.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the runs are ended, and the same call goes on.
    """
    planned, changes = plan(experiment, backbones), changes or {}
    names = list(dict.fromkeys(cell.model for cell in planned))
    spaces = {
        name: model_space(config, root, name, dataset_id, budget, changes, data_root)
        for name in names
    }
    space = spaces[names[0]][1]
    require_devices(gpus)
    found = data_hash(space, root)
    store = Store(output, dataset_id, root)
    store.require_alike(experiment, changes, budget, found)
    queue = queue or root / "checkpoints" / "study" / output.absolute().name
    folder = Folder(queue / dataset_id)
    folder.open(store.index)
    models = [
        ModelStudy(*spaces[name], [c for c in planned if c.model == name], seeds, budget)
        for name in names
    ]
    words = command_words(experiment, dataset_id, seeds, budget, backbones, changes)
    if config.absolute() != root / "config":
        words += ["--config", str(store.relative(config))]
    command = shlex.join([*words, "--output", str(store.relative(output))])
    search = StudySearch(models, folder, store, command, budget, changes, found)
    if search.done:
        print(f"nothing to run: all {search.size} runs are in {output}")
    try:
        run_all(space, folder, search, LocalEngine(gpus, per_gpu), seeded_command(root, folder))
    finally:  # what is known so far, also after Ctrl-C
        search.save()
        store.write_config(space)
        store.copy_card(space)
    for trial in search.selected():
        if trial.status == FAILED:
            print(f"failed: {trial.name}: {trial.reason}\n  {folder.log(trial)}")
    if experiment == "routers":
        probe_first_seeds(search, store, folder, space, root)
    if any(trial.status == DONE for trial in search.selected()):
        for path in write_artefacts(output):
            print(path)
    return exit_code(search.selected())


def command_words(
    experiment: str,
    dataset_id: str,
    seeds: Sequence[int],
    budget: int,
    backbones: Sequence[str] | None,
    changes: dict[str, Any],
) -> list[str]:
    """The command that repeats the study on any machine, without devices and folders of this one."""
    words = ["python", "-m", "engine.study", experiment, "--dataset", dataset_id]
    words += ["--seeds", str(len(seeds)), "--budget", str(budget)]
    words += ["--backbones", *backbones] if backbones else []
    words += ["--set", *(f"{k}={json.dumps(v)}" for k, v in changes.items())] if changes else []
    return words


def probe_first_seeds(
    search: StudySearch, store: Store, folder: Folder, space: Space, root: Path
) -> None:
    """Look into the trained weights of the first seed of each model, once."""
    trials = {trial.expid: trial for trial in search.selected()}
    folder.write_config(folder.path, space, trials, str(folder.runs))
    for model in search.models:
        for trial in (trials[0] for trials in model.runs.values()):
            target = store.probe(trial)
            if search.trials[trial.name].status != DONE or target.exists():
                continue
            checkpoint = (folder.runs / trial.run_name).with_suffix(".model")
            if not checkpoint.exists():
                print(
                    f"{trial.name}: its checkpoint is not in {folder.runs}, so that its routing cannot be "
                    "looked into; another --output runs it anew"
                )
                continue
            params, _ = load(folder.path, root, trial.expid, trial.params["seed"])
            write_json(target, probe(*load_trained(params, checkpoint), params))

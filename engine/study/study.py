"""A call of a study, from its arguments to its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..analysis.catalogue import write_artefacts
from ..analysis.probes.probe import load_trained, probe
from ..common.errors import UserError
from ..common.files import write_json
from ..common.places import CONFIG
from ..config.load import load
from ..config.models import model_files
from ..config.options import RunOptions
from ..config.read import dataset_part
from ..datasets.card import card_beside, longest_history
from ..tuner.engines import CPU, LocalEngine
from ..tuner.folder import Folder
from ..tuner.leaderboard import exit_code
from ..tuner.space import Space, data_hash
from ..tuner.trial import DONE, FAILED
from ..tuner.tune import require_devices, run_all, run_expid_command
from .call import Call
from .experiments import Planned, distinct, plan
from .run_queue import StudySearch
from .store import Store
from .tuning import model_space


def study(
    call: Call,
    options: RunOptions,
    output: Path,
    gpus: Sequence[int] = (CPU,),
    per_gpu: int = 1,
    queue: Path | None = None,
) -> int:
    """Run what an experiment lacks, and write results, tables and figures; returns the exit code.

    Args:
        call: what is compared. Its ``config``, ``output`` and ``model_zoo`` are set from the rest.
        options: how the runs are made; ``changes`` are set in every configuration. The grids for
            tuning are those of ``tuner.space.grid_file``.
        output: the folder of results, see ``store.py``.
        gpus: CUDA devices; -1 is the CPU.
        per_gpu: how many runs each device takes at a time.
        queue: the folder of checkpoints, logs and killed runs, by data set; by default
            ``checkpoints/study/<name of output>``.

    Raises:
        UserError: bad input; nothing has been started.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the runs are ended, and the same call goes on.
    """
    dataset_part(options.config, call.dataset, f"--dataset {call.dataset}")
    own = model_files(options.model_zoo) if options.model_zoo else []
    planned = plan(call.experiment, call.backbones, call.variants, own)
    spaces = {
        name: model_space(f"{name}_{call.dataset}", options, call.budget)
        for name in dict.fromkeys(cell.model for cell in planned)
    }
    space = next(iter(spaces.values()))
    require_devices(gpus)
    found = data_hash(space, options.home)
    planned = _distinct(planned, call, options.home / space.dataset["train_data"])
    store = Store(output, call.dataset, options.home)
    config = "" if options.config.absolute() == CONFIG else str(store.relative(options.config))
    zoo = str(store.relative(options.model_zoo)) if options.model_zoo else ""
    call = replace(call, config=config, output=str(store.relative(output)), model_zoo=zoo)
    store.require_alike(call, found)
    queue = queue or options.home / "checkpoints" / "study" / output.absolute().name
    folder = Folder(queue / call.dataset)
    folder.open(store.index)
    search = StudySearch(spaces, planned, folder, store, call, found)
    if search.next() is None:
        print(f"nothing to run: all {search.size} runs are in {output}")
    command = run_expid_command(folder, options.model_zoo)
    try:
        run_all(space, folder, search, LocalEngine(gpus, per_gpu), command)
    finally:  # what is known so far, also after Ctrl-C
        search.save()
        store.write_config(space)
        store.copy_card(space)
    for trial in search.selected():
        if trial.status == FAILED:
            print(f"failed: {trial.name}: {trial.reason}\n  {folder.log(trial)}")
    if call.experiment == "routers":
        probe_first_seeds(search, store, folder, space, options)
    if any(trial.status == DONE for trial in search.selected()):
        for path in write_artefacts(output):
            print(path)
    return exit_code(search.selected())


def _distinct(planned: list[Planned], call: Call, train_data: Path) -> list[Planned]:
    """The configurations that give different runs on the data there is."""
    longest = longest_history(card_beside(train_data))
    kept = distinct(planned, longest)
    if not kept:
        raise UserError(
            f"--dataset {call.dataset}: its longest history has {longest} items, so that {call.experiment} has "
            "nothing to compare; take a data set with longer ones"
        )
    return kept


def probe_first_seeds(
    search: StudySearch, store: Store, folder: Folder, space: Space, options: RunOptions
) -> None:
    """Write once what the trained weights of the first seed of each model show."""
    trials = {trial.expid: trial for trial in search.selected()}
    folder.write_config(folder.path, space, trials, str(folder.runs))
    for trial, *_ in search.runs.values():
        target = store.probe(trial)
        if trial.status != DONE or target.exists():
            continue
        checkpoint = (folder.runs / trial.run_name).with_suffix(".model")
        if not checkpoint.exists():
            print(
                f"{trial.name}: its checkpoint is not in {folder.runs}, so that its routing cannot be "
                "looked into; another --output runs it anew"
            )
            continue
        of_trial = replace(
            options, config=folder.path, seed=trial.params["seed"], data_root=None, changes={}
        )
        params = load(trial.expid, of_trial).params
        write_json(target, probe(*load_trained(params, checkpoint), params))

"""The paper's experiments: ``python -m engine.study table1 --dataset movielens_100k --seeds 5``."""

import argparse
from pathlib import Path
from typing import Any

from model_zoo.registry import BACKBONES, CONTROLS, MIXTURES

from ..analysis.catalogue import write_artefacts
from ..analysis.probes.probe import load_run, probe
from ..baseline import record
from ..baseline.measure import measure
from ..common.errors import UserError, run_command
from ..common.files import write_json
from ..common.places import CONFIG, HOME
from ..config.command_line import CommandLine, parse_changes, positive
from ..config.load import load
from ..config.models import model_files
from ..config.options import RunOptions
from ..config.read import dataset_part, resolve_paths
from ..datasets.prepared.card import card_beside, longest_history
from ..run.devices import require_devices
from ..tuner.checks import data_hash
from ..tuner.engines import LocalEngine, run_expid_command
from ..tuner.folder import Folder
from ..tuner.leaderboard import exit_code, failures
from ..tuner.scheduler import Scheduler
from ..tuner.space import Space
from ..tuner.trial import DONE
from .experiments import ALONE, BUDGET, EXPERIMENTS, UNTUNED, Call, default_budget, distinct, plan
from .run_queue import StudySearch, model_space
from .store import Store, portable

OWN = ("seed", "model", "dataset_id", "model_root", "model_id")
DECIDED = dict.fromkeys(OWN, "the study decides it")


def main() -> int:
    """Run the missing runs of an experiment, write tables and figures, and return the exit code."""
    args = _parser().parse_args()
    if args.experiment in UNTUNED and args.budget not in (None, 1):
        reason = f"{args.experiment} runs at the configuration's own values, without tuning"
        raise UserError(f"--budget {args.budget}: {reason}; leave --budget out")
    changes = parse_changes(args.set, DECIDED)
    zoo = args.model_zoo
    options = RunOptions(args.config, model_zoo=zoo, data_root=args.data_root, changes=changes)
    call = _call(args, changes)
    dataset_part(args.config, args.dataset, f"--dataset {args.dataset}")
    own = model_files(zoo) if zoo else []
    planned = plan(args.experiment, args.backbones, args.variants, own)
    models = dict.fromkeys(cell.model for cell in planned)
    spaces = {m: model_space(f"{m}_{args.dataset}", options, call.budget) for m in models}
    space = next(iter(spaces.values()))
    require_devices(*args.gpu)
    longest = longest_history(card_beside(HOME / space.dataset["train_data"]))
    planned = distinct(planned, longest)
    if not planned:
        reason = f"its longest history, {longest} items, is too short for {args.experiment}"
        raise UserError(f"--dataset {args.dataset}: {reason}; take another data set")
    store = Store(args.output, call, data_hash(space, HOME))
    queue = args.queue or HOME / "checkpoints" / "study" / args.output.absolute().name
    folder = Folder(queue / args.dataset)
    folder.open()
    search = StudySearch(spaces, planned, folder, store)
    if search.next() is None:
        print(f"nothing to run: all {search.size} runs are in {args.output}")
    engine, command = LocalEngine(args.gpu, args.per_gpu), run_expid_command(folder.path, zoo)
    try:
        Scheduler(folder, search, engine, command).run()
    finally:  # save the results so far, even after Ctrl-C
        search.save()
        store.write_config(space)
    for line in failures(folder, search.selected()):
        print(line)
    if args.experiment == "routers":
        _probe_first_seeds(search, zoo)
    _count(search, space)
    if any(trial.status == DONE for trial in search.selected()):
        print(*write_artefacts(args.output), sep="\n")
    return exit_code(search)


def _call(args: argparse.Namespace, changes: dict[str, Any]) -> Call:
    """The call that the command line makes."""
    budget = args.budget or default_budget(args.experiment)
    cells = (args.experiment, args.dataset, args.seeds, budget, args.backbones, args.variants)
    config = "" if args.config.absolute() == CONFIG else portable(args.config)
    zoo = portable(args.model_zoo) if args.model_zoo else ""
    return Call(*cells, changes, config, portable(args.output), zoo)


def _count(search: StudySearch, space: Space) -> None:
    """Measure the counting baseline at each length of history that has runs, once."""
    place = search.store.path, search.store.study["dataset_hash"]
    done = (trial for trial in search.selected() if trial.status == DONE)
    for max_len in sorted({trial.params["max_len"] for trial in done}):
        if not record.is_current(record.of(*place, max_len)):
            params = resolve_paths(space.dataset, HOME) | {"dataset_id": search.store.call.dataset}
            print(f"the counting baseline, max_len {max_len}", flush=True)
            record.add(*place, max_len, measure(params, max_len))


def _probe_first_seeds(search: StudySearch, model_zoo: Path | None) -> None:
    """Analyse the trained weights of each model's first seed, and write the result once."""
    folder = search.folder
    trials = {trial.expid: trial for trial in search.selected()}
    folder.write_config(folder.path, search.space, trials, str(folder.runs))
    for trial, *_ in search.runs.values():
        target, checkpoint = search.store.probe(trial), folder.runs / f"{trial.run_name}.model"
        if trial.status != DONE or target.exists():
            continue
        if not checkpoint.exists():
            print(f"{trial.name}: no probe, {checkpoint} is missing; another --output runs it anew")
            continue
        of_trial = RunOptions(config=folder.path, seed=trial.params["seed"], model_zoo=model_zoo)
        params = load(trial.expid, of_trial).params
        write_json(target, probe(*load_run(params, checkpoint), params))


def _parser() -> CommandLine:
    parser = CommandLine(
        prog="python -m engine.study",
        description="Run what an experiment lacks: tuning, then every seed of every configuration; "
        "and write tables and figures. The same command goes on after a kill.",
        epilog="\n".join(f"{name:8} {summary}" for name, (summary, _) in EXPERIMENTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    budget = f"tuning trials of each model (default: {BUDGET}); 1 takes the configuration as it is, as knobs do"
    backbones = f"only these of {', '.join(BACKBONES)}, or of --model-zoo"
    variants = f"only these of the backbones: {', '.join((ALONE, *MIXTURES, *CONTROLS))}"
    queue = "folder of checkpoints and logs (default: checkpoints/study/<name of output>)"
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--dataset", required=True, help="data set id, as in <model>_<dataset>")
    seeds = "how many: 1, 2, ... (default: 5)"
    parser.add_argument("--seeds", type=positive, default=5, help=seeds)
    parser.add_argument("--budget", type=positive, help=budget)
    parser.add_argument("--backbones", nargs="+", default=[], help=backbones)
    parser.add_argument("--variants", nargs="+", default=[], help=variants)
    parser.add_places()
    parser.add_changes()
    parser.add_devices("--runs-per-gpu")
    parser.add_argument("--output", type=Path, default=HOME / "results", help="default: results/")
    parser.add_argument("--queue", type=Path, help=queue)
    return parser


if __name__ == "__main__":
    run_command(main, "the same command goes on")

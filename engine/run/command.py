"""The command line of experiments: ``run_expid.py`` in a checkout, ``mos-run`` when installed."""

import os
import traceback
from dataclasses import replace
from itertools import product
from os.path import relpath
from pathlib import Path

from ..common.errors import UserError, run_command, say
from ..config.command_line import CommandLine, parse_changes
from ..config.options import RunOptions
from ..config.read import describe_experiments, load_experiment

# Keys of an experiment for which there are arguments of their own.
DECIDED = {"model_id": "write --expid", "seed": "write --seed", "model_zoo": "write --model-zoo"}


def main() -> None:
    """Run this process's command line and end the process with its exit code."""
    run_command(_run, ranks=True)


def _run() -> int:
    parser = CommandLine(
        description="Train and evaluate models by experiment id.",
        epilog="The files of a run are named by experiment id and seed, and with --set by a digest of what is set. "
        "A run without --resume replaces what an earlier run of the same name has written.",
    )
    parser.add_places()
    parser.add_changes()
    parser.add_argument("--expid", nargs="+", default=[], help="experiment ids, run one by one")
    parser.add_gpu()
    parser.add_argument("--seed", nargs="+", type=int, help="seeds; default: the configuration's")
    parser.add_argument("--resume", action="store_true", help="go on with killed runs")
    trained = "result of a trained model, from whose weights all start, such as before --grow"
    parser.add_argument("--init-from", type=Path, metavar="RESULT", help=trained)
    results = "folder for results, in place of model_root"
    parser.add_argument("--model-root", type=Path, help=results)
    parser.add_argument("--list", action="store_true", help="list the experiment ids and stop")
    args = parser.parse_args()
    if args.list or not args.expid:
        print(describe_experiments(args.config))
        return 0
    if args.gpu >= 0:  # torchrun numbers the processes of each machine
        args.gpu += int(os.environ.get("LOCAL_RANK", 0))
    names = ("config", "gpu", "resume", "model_zoo", "data_root", "model_root")
    given = {name: getattr(args, name) for name in names}
    changes = parse_changes(args.set, DECIDED)
    if args.init_from is not None:
        changes["init_from"] = str(args.init_from.resolve().with_suffix(".model"))
    options = RunOptions(**given, changes=changes)
    # A wrong experiment id is answered before torch is imported, which is slow.
    read = [load_experiment(args.config, e, options.changes) for e in dict.fromkeys(args.expid)]

    from .cpu import set_up_threads

    set_up_threads()

    from model_zoo import ranks

    from ..config.load import checked
    from .devices import require_devices
    from .experiment import run
    from .summary import summary

    pairs = product(dict.fromkeys(args.seed or [None]), read)
    experiments = [checked(params, replace(options, seed=seed)) for seed, params in pairs]
    require_devices(args.gpu)
    ranks.start(args.gpu)
    finished, code = [], 0
    for experiment in experiments:
        try:
            finished.append(run(experiment))
        except UserError as error:
            say(error)
            code = 2
        except OSError:  # a full disk or a closed pipe would end the others, too
            raise
        except Exception:
            traceback.print_exc()
            code = 1
        if code and ranks.size() > 1:  # the others may wait for this one in the same experiment
            break
    ranks.stop()
    if finished:
        print("\n" + summary(finished))
        folders = {
            relpath(Path(e.params["model_root"], e.params["dataset_id"])) for e in experiments
        }
        print(f"results and checkpoints are in {', '.join(sorted(folders))}")
    return code

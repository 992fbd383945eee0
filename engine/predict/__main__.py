"""Score rows with a trained model: ``python -m engine.predict --result RESULT.json ...``."""

from pathlib import Path

from model_zoo.atomic import written_whole

from ..common.errors import UserError, run_command
from ..common.files import writing
from ..config.command_line import CommandLine
from ..run.cpu import set_up_threads

WRITERS = {".parquet": "write_parquet", ".csv": "write_csv"}
# Keys of a mapping that may differ from those of the log that was prepared.
KEYS = ("item", "items", "users", "columns", "separator")


def main() -> None:
    parser = CommandLine(
        prog="python -m engine.predict",
        description="Add the column `score` to a table of users, items, times and features. Histories "
        "come from the prepared data set, and from --events.",
    )
    parser.add_trained(data="folder of the data set, if it was moved", exported=True)
    parser.add_gpu()
    parser.add_argument("--input", type=Path, required=True, help="rows to score: CSV or Parquet")
    parser.add_argument("--output", type=Path, required=True, help="a .parquet or .csv to write")
    parser.add_argument("--events", type=Path, help="what happened since, a log like the first")
    for key in KEYS:
        parser.add_argument(f"--{key}", help="as in prepare.py generic, where it is not as it was")
    args = parser.parse_args()
    if (writer := WRITERS.get(args.output.suffix)) is None:
        raise UserError(f"--output {args.output}: ends with neither .parquet nor .csv")

    from .scores import predict  # imports torch

    keys = {key: getattr(args, key) for key in KEYS}
    scored = predict(args.result, args.input, args.events, args.data, args.gpu, **keys)
    with writing(args.output), written_whole(args.output) as file:
        getattr(scored, writer)(file)
    print(f"{args.output}: {scored['score'].count():,} rows have a score")


if __name__ == "__main__":
    set_up_threads()
    run_command(main, "nothing was written")

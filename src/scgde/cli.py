"""The command line: ``scgde demo``, ``scgde embed`` and ``scgde transport``.

Imports are local to the commands: ``scgde --help`` does not wait for torch.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scgde
from scgde._files import check_output, write_atomically

#: Options of ``embed`` by what they are passed to. None has a default here: those of the library count.
SETUP = (
    "groupby",
    "use_rep",
    "layer",
    "labels",
    "batch_key",
    "weight_key",
    "split_key",
    "min_cells",
    "drop_ungrouped",
    "time_key",
)
MODEL = ("n_latent", "seed")
TRAINING = ("max_epochs", "max_steps", "max_seconds", "checkpoint_dir", "checkpoint_minutes", "resume_from")

#: Read when torch and NumPy are first imported. Threads that spin while they wait for one another take each other's
#: cores on a busy machine, which can make training ten times slower.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv
        Arguments; by default those of the process.

    Returns
    -------
    Exit status: 0, or 2 where the input is wrong, which is then said in one line.
    """
    args = _parser().parse_args(argv)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for part in ("fabric", "pytorch"):
        logging.getLogger(f"lightning.{part}.utilities.rank_zero").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            args.run(args)
        except (ValueError, KeyError, TypeError, OSError) as error:
            if args.traceback:
                raise
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            print(f"scgde: error: {_as_options(str(text))}", file=sys.stderr)
            return 2
    return 0


def _embed(args: argparse.Namespace) -> None:
    from scgde._constants import KEY

    given, key = vars(args), getattr(args, "key_added", KEY)
    _check_files(args)
    if args.model is None and "groupby" not in given:
        msg = "groupby= is missing: name the column(s) of .obs that make the groups, e.g. groupby=donor."
        raise ValueError(msg)
    fixed = [name for name in (*SETUP, *MODEL, *TRAINING, "save_model") if name in given]
    if args.model is not None and fixed:
        msg = f"A saved model has its own settings: leave out {', '.join(f'{name}=' for name in fixed)} with model=."
        raise ValueError(msg)

    import anndata

    adata = anndata.read_h5ad(args.file)
    if args.model is None:
        model = _trained_model(adata, given)
        z = model.get_group_embedding(key_added=key)
    else:
        load = scgde.GDE.load  # imports scvi-tools, which sets its logger up then
        logging.getLogger("scvi").setLevel(logging.WARNING)
        model = load(args.model, adata=False)
        z = model.get_group_embedding(adata, key_added=key)
    write_atomically(adata, args.out)
    if "save_model" in given:
        model.save(args.save_model, overwrite=args.overwrite)
    print(f"Embedded {len(z)} groups of {adata.n_obs:,} cells in {z.shape[1]} dimensions. Written to {args.out}:")
    print(f"  .uns[{key!r}]        embedding (one row per group), groups, settings")
    print(f"  .obsm[{'X_' + key!r}]     the embedding of each cell's group")


def _transport(args: argparse.Namespace) -> None:
    given = vars(args)
    _check_files(args)
    for name, what in (("groupby", "the column(s) that make the groups"), ("time_key", "the column with the time")):
        if name not in given:
            msg = f"{name}= is missing: name {what}."
            raise ValueError(msg)

    import anndata

    adata = anndata.read_h5ad(args.file)
    model = _trained_model(adata, given, scgde.TDE)
    errors = model.fit_forecaster(args.source_time, args.target_time, args.kind)
    cells = model.forecast(args.source_time, args.target_time, groups="all" if args.all_groups else "orphans")
    write_atomically(cells, args.out)
    if "save_model" in given:
        model.save(args.save_model, overwrite=args.overwrite)
    groups = cells.uns["forecast"]["groups"]
    print(f"Forecast {len(groups)} groups, {cells.n_obs:,} cells, from {args.source_time} to {args.target_time}.")
    print("Squared error of the predicted embedding in held-out groups:")
    print(errors.to_string())
    print(f"Written to {args.out}:")
    print("  .X                 the cells at the target time; .obs: source, target, weight (growth)")
    print("  .uns['forecast']   predicted embedding; groups with log_growth and p_value (small: extrapolation)")


def _trained_model(adata: Any, given: dict[str, Any], kind: Any = None) -> Any:
    setup = {name: given[name] for name in SETUP if name in given}
    if len(setup["groupby"]) == 1:
        setup["groupby"] = setup["groupby"][0]
    kind = kind or scgde.GDE
    kind.setup_anndata(adata, **setup)
    model = kind(adata, **{name: given[name] for name in MODEL if name in given})
    model.train(**{name: given[name] for name in TRAINING if name in given})
    return model


def _check_files(args: argparse.Namespace) -> None:
    """Raise where a path cannot be used, before any work."""
    if not args.file.is_file():
        msg = f"There is no file {str(args.file)!r}."
        raise FileNotFoundError(msg)
    check_output(args.out, overwrite=args.overwrite)
    if getattr(args, "model", None) is not None and not args.model.is_dir():
        msg = f"There is no saved model at {str(args.model)!r}: name a folder that save_model= has made."
        raise FileNotFoundError(msg)
    save_model = getattr(args, "save_model", None)
    if save_model is not None and save_model.exists() and not args.overwrite:
        msg = f"{str(save_model)!r} exists. Choose another folder for save_model=, or pass overwrite=True."
        raise FileExistsError(msg)


def _demo(args: argparse.Namespace) -> None:
    from scgde._demo import FULL, QUICK, run_demo

    run_demo(args.out, scale=QUICK if args.quick else FULL, seed=args.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scgde", description="Embed groups of cells (donors, perturbations, …): one vector per group."
    )
    parser.add_argument("--version", action="version", version=f"scgde {scgde.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, add, text in (
        ("demo", _demo, _add_demo, "simulate a cohort, train on it, and show what comes out"),
        ("embed", _embed, _add_embed, "train on an .h5ad file and write it with an embedding of its groups"),
        ("transport", _transport, _add_transport, "forecast groups at a time at which they were not seen"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add(command)
        command.add_argument("--traceback", action="store_true", help="show where in the code an error comes from")
        command.set_defaults(run=run)
    return parser


def _add_demo(command: argparse.ArgumentParser) -> None:
    text = "folder for the results; those of an earlier demo are replaced (default: %(default)s)"
    command.add_argument("--out", type=Path, default=Path("scgde_demo"), metavar="DIR", help=text)
    command.add_argument("--seed", type=_count, default=0, metavar="N", help="another cohort (default: %(default)s)")
    command.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)


def _add_embed(command: argparse.ArgumentParser) -> None:
    _add_training(command)
    command.add_argument("--model", type=Path, metavar="DIR", help="embed with a saved model, without training")
    text = "name of the results in .uns and .obsm"
    command.add_argument("--key-added", default=argparse.SUPPRESS, help=text, metavar="KEY")


def _add_transport(command: argparse.ArgumentParser) -> None:
    _add_training(command)
    text = "column with the time: numbers, or an ordered categorical"
    command.add_argument("--time-key", default=argparse.SUPPRESS, metavar="COLUMN", help=text)
    command.add_argument("--source-time", required=True, metavar="TIME", help="time of the cells that are moved")
    command.add_argument("--target-time", required=True, metavar="TIME", help="time that they are moved to")
    text = "forecaster: ridge, mlp or mixture (default: %(default)s)"
    command.add_argument("--kind", default="ridge", metavar="KIND", help=text)
    text = "forecast all groups at the source time, not only those that the target time lacks"
    command.add_argument("--all-groups", action="store_true", help=text)


def _add_training(command: argparse.ArgumentParser) -> None:
    """Options of every command that trains on a file."""
    command.add_argument("file", type=Path, metavar="FILE.h5ad", help="cells")
    command.add_argument("--out", type=Path, required=True, metavar="OUT.h5ad", help="file to write")
    command.add_argument("--overwrite", action="store_true", help="replace the output where it exists")

    def add(flag: str, text: str, **kwargs: Any) -> None:
        command.add_argument(flag, default=argparse.SUPPRESS, help=text, **kwargs)

    add("--groupby", "column of .obs that makes the groups; may be repeated", metavar="COLUMN", action="append")
    add("--use-rep", "what to read of a cell: a key of .obsm, or X", metavar="KEY")
    add("--layer", "a layer to read in place of X", metavar="KEY")
    add("--labels", "attributes of groups, which come along", metavar="COLUMN", nargs="+")
    add("--batch-key", "column with technical batches of cells", metavar="COLUMN")
    add("--weight-key", "column with the mass of each cell in its group", metavar="COLUMN")
    add("--split-key", "column with train, validation or test for whole groups", metavar="COLUMN")
    add("--min-cells", "smallest group that is accepted", type=_count, metavar="N")
    add("--drop-ungrouped", "leave out cells that belong to no group", action="store_true")
    add("--n-latent", "size of the embedding", type=_count, metavar="N")
    add("--max-epochs", "limit of training", type=_count, metavar="N")
    add("--max-steps", "limit of training", type=_count, metavar="N")
    add("--max-seconds", "limit of training", type=float, metavar="S")
    add("--seed", "one seed, one result", type=_count, metavar="N")
    text = "folder to keep a checkpoint of training in, for --resume"
    add("--checkpoint-dir", text, type=Path, metavar="DIR")
    add("--checkpoint-minutes", "minutes between checkpoints", type=float, metavar="M")
    text = "go on from the checkpoint in --checkpoint-dir, where there is one"
    add("--resume", text, action="store_const", const="auto", dest="resume_from")
    add("--save-model", "folder to save the model to", type=Path, metavar="DIR")


def _count(text: str) -> int:
    """Type of options that take a non-negative integer."""
    if not text.isdecimal():
        msg = f"expected an integer of at least 0, received {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _as_options(text: str) -> str:
    """A message in one line, with Python arguments as the options that set them: overwrite=True is --overwrite."""

    def option(match: re.Match[str]) -> str:
        name, value = match.groups()
        if name not in known:
            return match[0]
        if name == "resume_from":
            return "--resume"
        return f"--{name.replace('_', '-')}" + ("" if value in (None, "True") else f" {value}")

    known = {*SETUP, *MODEL, *TRAINING, "model", "save_model", "key_added", "overwrite"}
    return re.sub(r"\b([a-z_]+)=(\w+|'[^']*')?", option, " ".join(text.split()))


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *args: Any, **kwargs: Any) -> None:
    """Show what our checks have to say; what libraries say about each other is not for users of a command."""
    path = Path(filename)
    foreign = "site-packages" in path.parts and not path.is_relative_to(Path(__file__).parent)
    if issubclass(category, UserWarning) and not foreign:
        print(f"scgde: warning: {_as_options(str(message))}", file=sys.stderr)

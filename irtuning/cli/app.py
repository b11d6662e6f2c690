"""The typer application that the commands register with."""

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Layer-wise fine-tuning for revision intention prediction (IR-Tuning and its baselines).\n\n"
    "Start with:  irtuning reproduce    every notebook, figure and table, offline, on a synthetic corpus\n\n"
    "             irtuning compare --methods full,ir,rst --seeds 2",
)

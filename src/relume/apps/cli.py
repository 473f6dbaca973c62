"""The command line: `relume COMMAND …`. Each command's own file says what it does."""

from __future__ import annotations

import errno
import os
import sys

import typer

from relume.apps.commands import (
    check_tiling,
    compare,
    convert,
    degrade,
    demo,
    doctor,
    engines,
    evaluate,
    export,
    jobs,
    measure,
    models,
    prepare,
    report,
    train,
    upscale,
)
from relume.apps.console import err, say_error
from relume.core.errors import RelumeError

app = typer.Typer(
    name="relume",
    help="Bring small and damaged pictures back to light; build, train and compare the models that do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("upscale")(upscale.upscale)
app.command("jobs")(jobs.jobs)
app.command("compare")(compare.compare)
app.command("evaluate")(evaluate.evaluate)
app.command("measure")(measure.measure)
app.command("prepare")(prepare.prepare)
app.command("train")(train.train)
app.command("report")(report.report)
app.command("convert")(convert.convert)
app.command("export")(export.export)
app.command("engines")(engines.engines)
app.command("models")(models.models)
app.command("methods")(models.methods)
app.command("show")(models.show)
app.command("degrade")(degrade.degrade)
app.command("demo")(demo.demo)
app.command("check-tiling")(check_tiling.check_tiling)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        from relume import __version__

        typer.echo(f"relume {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Say which version."
    ),
) -> None:
    """Only here to carry `--version`."""


def main() -> None:
    """Run the command line; errors that the user can mend become one line and exit status 1."""
    try:
        app()
    except RelumeError as error:
        say_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`relume models | head`); that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        # Standard output goes to a full disk (`relume models > list.txt`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        say_error(f"cannot print the result: {error.strerror}; free some space")
        sys.exit(1)


if __name__ == "__main__":
    main()

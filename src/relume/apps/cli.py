"""The command line: `relume COMMAND …`. Each command's own file says what it does."""

from __future__ import annotations

import errno
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import typer

from relume.apps import commands
from relume.apps.console import INTERRUPTED, err, say_error
from relume.core.errors import RelumeError

_FIRST = ("upscale", "jobs", "compare", "evaluate", "measure", "prepare", "train")
"""What the help begins with; the commands of the other files follow by the files' names."""


def _commands() -> Iterator[Callable[..., Any]]:
    """Yield the commands: of each file the function called as the file is, or those of its `COMMANDS`."""
    files = [info.name for info in pkgutil.iter_modules(commands.__path__)]
    for name in sorted(files, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        module = import_module(f"{commands.__name__}.{name}")
        yield from getattr(module, "COMMANDS", None) or (getattr(module, name),)


app = typer.Typer(
    name="relume",
    help="Bring small and damaged pictures back to light; build, train and compare the models that do.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in _commands():
    app.command(_command.__name__.replace("_", "-"))(_command)


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
        sys.exit(INTERRUPTED)
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

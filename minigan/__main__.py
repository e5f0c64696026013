"""python -m minigan: what can be asked of minigan itself. The training programs are in examples/."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = ("info",)


class Parser(argparse.ArgumentParser):
    """With mistakes told in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Do what is asked. Exit code 0, or 2 where the question makes no sense."""
    for stream in (sys.stdout, sys.stderr):  # a terminal or file that cannot show a letter gets "?"
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    parser = Parser(
        prog="python -m minigan",
        description="GANs in plain NumPy, or CuPy on a GPU. The programs that train are in examples/.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "command", nargs="?", metavar="COMMAND", help="info: what works on this machine, and what is missing"
    )
    parser.add_argument("--json", action="store_true", help="info as JSON, for programs")
    options = parser.parse_args(argv)
    if options.command is None:
        if options.json:
            parser.error("--json goes with info")
        parser.print_help()
        return
    if options.command not in COMMANDS:
        parser.error(f"there is no command {options.command!r}; there is: {', '.join(COMMANDS)}")
    from . import info

    found = info.report()
    if options.json:
        import json

        text = json.dumps(found, indent=2)
    else:
        text = "\n".join(info.lines(found))
    try:
        print(text, flush=True)
    except BrokenPipeError:  # nobody reads on, as after `| head`: then Python flushes into nowhere at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

"""What can be asked of the shell: its commands, their arguments, and their help."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import NoReturn

COMMANDS = {
    "list": "show the jobs, and the processes that are alive",
    "next": "show when a job is due: with CRON_SEED exactly, else from when to when",
    "history": "show the remembered runs of a job, the last one at the end",
    "run": "run a job here and now, whether it is due or not, even if it is paused",
    "run-due": "run the jobs that have waited for their shortest gap: for a timer outside",
    "pause": "let a job not run until it is resumed, or asked to",
    "resume": "let a paused job run again",
    "forget": "delete what the database knows of a job",
}

DUE_TIMES_MAX = 1_000


class Refused(Exception):
    """What is asked for makes no sense. The message is one line: why."""


class Parser(ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; see {self.prog} --help")


def read_arguments(words: Sequence[str] | None) -> Namespace:
    """The `command` and its arguments: from the command line, if no words are given."""
    parser = Parser(
        prog="python -m app.cron",
        description="Look at the recurring jobs, run them, steer them.",
        epilog="Exit codes: 0 done; 1 a run has failed, or the database cannot be used; 2 refused; "
        "75 another process runs the job, or was quicker; 130, 143 ended by Ctrl-C, by SIGTERM.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, help_ in COMMANDS.items():
        command = commands.add_parser(name, help=help_, description=help_)
        if name == "run-due":
            command.add_argument("names", metavar="NAME", nargs="*", help="default: all jobs")
        elif name != "list":
            command.add_argument("name", metavar="NAME")
        if name == "next":
            command.add_argument("-n", type=_count, default=10, help="how many (default: 10)")
        if name in ("list", "next", "history"):
            command.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args(words)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= DUE_TIMES_MAX:
        raise ArgumentTypeError(f"{text!r} is not a number from 1 to {DUE_TIMES_MAX}")
    return int(text)

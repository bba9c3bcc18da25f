"""The one entry point, `reco`. Finds a command, runs it, and turns what it raises into an exit code.

Commands are entry points of the group `reco.commands`: the name is the command's words joined by dots
(`bundle.list` is `reco bundle list`) and the value is a module with `HELP: str`, `configure(parser)` and
`run(args) -> int`. So the serving image offers only what it holds, and `service` imports no other room.

Exit codes: 0 done; 2 bad input or usage, one line on stderr; 3 verification refused; 130 interrupted.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import NoReturn, Protocol, cast

from service.errors import BundleRefused, InputError, RecoError

DISTRIBUTION = "reco-service"
GROUP = "reco.commands"
DONE, BAD_INPUT, REFUSED, INTERRUPTED, PIPE_CLOSED = 0, 2, 3, 130, 141

_ABOUT_A_PATH = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
_EXTRA_OF_ROOM = {"models": "build", "loadtest": "load"}
_OWN_ROOMS = {"service", *_EXTRA_OF_ROOM}

Words = tuple[str, ...]


class Command(Protocol):
    """What a command's module holds."""

    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's flags."""

    def run(self, args: argparse.Namespace) -> int:
        """Do it; return the exit code."""


class Parser(argparse.ArgumentParser):
    """An argparse parser whose complaint is one line, raised as InputError, without the usage dump."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        raise InputError(f"{message} (see '{self.prog} --help')")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. `--help` and `--version` leave through SystemExit(0)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(words, installed_commands())
        # A reader that left early (`reco ... | head`) is noticed here, not while the interpreter shuts down.
        sys.stdout.flush()
    except BundleRefused as error:
        return _complain(error, REFUSED)
    except RecoError as error:
        return _complain(error, BAD_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (
        FileNotFoundError,
        FileExistsError,
        IsADirectoryError,
        NotADirectoryError,
        PermissionError,
    ) as error:
        if error.filename is None:  # not about a path that somebody named
            raise
        return _complain(f"{error.filename}: {error.strerror}", BAD_INPUT)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    return code


def installed_commands() -> dict[Words, str]:
    """Words of each command -> its module, in alphabetical order; only those whose module is installed."""
    found = {tuple(entry.name.split(".")): entry.value for entry in metadata.entry_points(group=GROUP)}
    return {words: module for words, module in sorted(found.items()) if _source_of(module) is not None}


def _dispatch(argv: list[str], commands: Mapping[Words, str]) -> int:
    words, rest = _split(argv, commands)
    module = commands.get(words)
    if module is not None:
        command = _load(words, module)
        parser = Parser(prog=_prog(words), description=command.HELP, allow_abbrev=False)
        command.configure(parser)
        return command.run(parser.parse_args(rest))
    return _group(words, rest, commands)


def _split(argv: list[str], commands: Mapping[Words, str]) -> tuple[Words, list[str]]:
    """Take leading words while they name a command or begin the names of some."""
    taken: Words = ()
    for word in argv:
        longer = (*taken, word)
        if not any(words[: len(longer)] == longer for words in commands):
            break
        taken = longer
    return taken, argv[len(taken) :]


def _group(words: Words, rest: list[str], commands: Mapping[Words, str]) -> int:
    """Answer `reco` or a bare group: its help, its version, or what is wrong."""
    below = {name: module for name, module in commands.items() if name[: len(words)] == words}
    next_words = sorted({name[len(words)] for name in below})
    if rest and not rest[0].startswith("-"):
        near = get_close_matches(rest[0], next_words, n=1)
        hint = f"did you mean '{_prog((*words, near[0]))}'?" if near else f"see '{_prog(words)} --help'"
        raise InputError(f"there is no command '{_prog((*words, rest[0]))}': {hint}")
    table = "\n".join(f"  {' '.join(name):<22} {_help_of(module)}" for name, module in below.items())
    parser = Parser(
        prog=_prog(words),
        usage=f"{_prog(words)} COMMAND [options]",
        description=f"commands:\n{table}\n\n'reco COMMAND --help' says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if not words:
        parser.add_argument("--version", action="version", version=f"reco {metadata.version(DISTRIBUTION)}")
    parser.parse_args(rest)
    parser.error(f"say which command: {', '.join(next_words)}")


def _load(words: Words, module: str) -> Command:
    """Import a command's module; a package that an extra would bring is asked for by the extra's name."""
    try:
        return cast("Command", importlib.import_module(module))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _OWN_ROOMS:
            raise
        extra = _EXTRA_OF_ROOM.get(module.partition(".")[0])
        what, install = (f"the '{extra}' extra", f"[{extra}]") if extra else (f"'{missing}'", "")
        hint = f"(no module named '{missing}'): pip install '{DISTRIBUTION}{install}'"
        raise InputError(f"'{_prog(words)}' needs {what} {hint}") from error


def _source_of(module: str) -> Path | None:
    """Find the file of a module without importing it; None where it is not installed."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # its package isn't here
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _help_of(module: str) -> str:
    """Read a command's HELP from its source: a listing needs no extra and no slow import."""
    source = _source_of(module)
    for node in ast.parse(source.read_text("utf-8")).body if source is not None else ():
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "HELP":
            value = cast("ast.Assign | ast.AnnAssign", node).value
            return str(ast.literal_eval(value)) if value is not None else ""
    return ""


def _prog(words: Words) -> str:
    return " ".join(("reco", *words))


def _complain(message: object, code: int) -> int:
    print("reco:", " ".join(str(message).split("\n")), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

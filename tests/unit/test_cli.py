"""The command line's dispatcher, driven as people drive it: in its own process, over real entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

COMMANDS = {
    "greet": """
import json
HELP = "Greet a person"
def configure(parser):
    parser.add_argument("--name", required=True)
    parser.add_argument("--times", type=int, default=1)
def run(args):
    print(json.dumps({"hello": [args.name] * args.times}))
    return 0
""",
    "shelf_add": 'HELP = "Add a book"\ndef configure(parser): parser.add_argument("book")\n'
    "def run(args):\n    print('added', args.book)\n    return 0\n",
    "shelf_list": 'HELP: str = "List the books"\ndef configure(parser): pass\n'
    "def run(args):\n    print('none')\n    return 0\n",
    "fail": """
from service.errors import BundleRefused, DataError, ModelNotFound
HELP = "Raise on purpose"
def configure(parser):
    parser.add_argument("how")
def run(args):
    if args.how == "data":
        raise DataError("ratings.csv", "not a number\\nat all", row=3, column="weight", value="x")
    if args.how == "bundle":
        raise BundleRefused("manifest.json", "sha256 differs")
    if args.how == "model":
        raise ModelNotFound("als")
    if args.how == "file":
        open("no/such/file.csv")
    if args.how == "interrupt":
        raise KeyboardInterrupt
    if args.how == "bug":
        raise ZeroDivisionError("a bug")
    return 7
""",
    "flood": 'HELP = "Print without end"\ndef configure(parser): pass\n'
    "def run(args):\n    while True:\n        print('x' * 1000)\n",
}
ENTRY_POINTS = """
[reco.commands]
greet = shop.greet
shelf.add = shop.shelf_add
shelf.list = shop.shelf_list
fail = shop.fail
flood = shop.flood
absent = nowhere.absent
train = models.train_with_a_missing_package
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a distribution with commands, and a `models` room that lacks a package."""
    root = tmp_path_factory.mktemp("site")
    for package in ("shop", "models"):
        (root / package).mkdir()
        (root / package / "__init__.py").touch()
    for name, source in COMMANDS.items():
        (root / "shop" / f"{name}.py").write_text(source)
    (root / "models" / "train_with_a_missing_package.py").write_text(
        'import a_package_that_nobody_has\nHELP = "Train something"\n'
    )
    info = root / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    return root


def reco(shop: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(shop), "COLUMNS": "110"}
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *words],
        cwd=shop,  # else this folder's rooms would come before the made-up ones
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_command_gets_its_parsed_flags_and_owns_stdout(shop: Path) -> None:
    done = reco(shop, "greet", "--name", "Ada", "--times", "2")
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"hello": ["Ada", "Ada"]}\n', "")


def test_a_dotted_name_is_two_words(shop: Path) -> None:
    assert reco(shop, "shelf", "add", "Emma").stdout == "added Emma\n"
    assert reco(shop, "shelf", "list").stdout == "none\n"


def test_an_argument_that_names_another_command_stays_an_argument(shop: Path) -> None:
    assert reco(shop, "shelf", "add", "greet").stdout == "added greet\n"


def test_help_lists_every_command_with_its_line_even_where_an_extra_is_missing(shop: Path) -> None:
    done = reco(shop, "--help")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert {"greet Greet a person", "shelf list List the books", "train Train something"} <= set(lines)


def test_help_hides_a_command_whose_room_is_not_installed(shop: Path) -> None:
    assert "absent" not in reco(shop, "--help").stdout
    assert reco(shop, "absent").returncode == 2


def test_help_of_a_group_lists_only_that_group(shop: Path) -> None:
    done = reco(shop, "shelf", "--help")
    assert done.returncode == 0
    assert "Add a book" in done.stdout
    assert "Greet" not in done.stdout


def test_help_of_a_command_shows_its_flags(shop: Path) -> None:
    done = reco(shop, "greet", "--help")
    assert done.returncode == 0
    assert "usage: reco greet" in done.stdout
    assert "--times" in done.stdout


def test_version_is_the_distributions(shop: Path) -> None:
    assert reco(shop, "--version").stdout == f"reco {metadata.version('reco-service')}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "say which command"),
        (("shelf",), "say which command: add, list"),
        (("gret",), "did you mean 'reco greet'?"),
        (("shelf", "lst"), "did you mean 'reco shelf list'?"),
        (("zzz",), "see 'reco --help'"),
        (("--colour",), "--colour"),
        (("greet",), "--name"),
        (("greet", "--name", "A", "--times", "many"), "--times: invalid int value: 'many'"),
        (("greet", "--na", "A"), "--na"),
        (("fail", "data"), "ratings.csv, row 3, column 'weight': not a number at all (found 'x')"),
        (("fail", "model"), "Model als not found"),
        (("fail", "file"), "no/such/file.csv: No such file or directory"),
        (("train",), "needs the 'build' extra"),
    ],
)
def test_bad_usage_and_bad_input_are_one_line_and_exit_2(
    shop: Path, words: tuple[str, ...], says: str
) -> None:
    done = reco(shop, *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("reco: ")
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def test_a_missing_package_says_what_to_install(shop: Path) -> None:
    message = reco(shop, "train").stderr
    assert "a_package_that_nobody_has" in message
    assert "pip install 'reco-service[build]'" in message


def test_a_refused_bundle_exits_3(shop: Path) -> None:
    done = reco(shop, "fail", "bundle")
    assert (done.returncode, done.stderr) == (3, "reco: bundle refused: manifest.json: sha256 differs\n")


def test_a_commands_own_exit_code_is_kept(shop: Path) -> None:
    assert reco(shop, "fail", "other").returncode == 7


def test_an_interrupt_exits_130_without_a_traceback(shop: Path) -> None:
    done = reco(shop, "fail", "interrupt")
    assert (done.returncode, done.stderr) == (130, "reco: interrupted\n")


def test_a_bug_keeps_its_traceback(shop: Path) -> None:
    done = reco(shop, "fail", "bug")
    assert done.returncode == 1
    assert "ZeroDivisionError: a bug" in done.stderr


def test_a_reader_that_leaves_early_is_no_error(shop: Path) -> None:
    command = [sys.executable, "-m", "service.cli", "flood"]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(shop)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""

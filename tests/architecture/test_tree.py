"""What must never be in the tree: registry addresses, one machine's paths, dead links."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]

# In pieces, so that this file doesn't find itself.
REGISTRIES = re.compile(
    "|".join(("py" + r"pi\.(org|python)", "python" + "hosted", "npmjs" + r"\.org", "index" + "-url"))
)
MACHINE_PATHS = re.compile(r"(?<![\w.$})])/(?:wo" + "rk|ro" + r"ot|ho" + r"me/\w+|tm" + r"p)/[\w.]")

LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def texts(files: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Each text file's path from the root and its text."""
    for path in files:
        data = path.read_bytes()
        if b"\0" not in data:
            yield path.relative_to(ROOT), data.decode("utf-8", errors="replace")


def test_no_package_registry_is_named(tracked: list[Path]) -> None:
    found = [
        (str(path), match[0])
        for path, text in texts(tracked)
        if path.name != "Makefile"  # its gate has the words it looks for
        for match in REGISTRIES.finditer(text)
    ]
    assert found == []


def test_no_path_of_one_machine_is_named(tracked: list[Path]) -> None:
    found = [
        (str(path), match[0])
        for path, text in texts(tracked)
        if path.name != "Dockerfile" and path.parts[0] != "deploy"  # paths of the container
        for match in MACHINE_PATHS.finditer(text)
    ]
    assert found == []


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings as forges make them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def is_dead(page: Path, target: str) -> bool:
    """Whether a link leads nowhere. Addresses of other sites are not followed."""
    if re.match(r"[a-z]+:", target):
        return False
    file, _, anchor = unquote(target).partition("#")
    linked = (page.parent / file).resolve() if file else page
    if not linked.exists():
        return True
    return bool(anchor) and linked.suffix == ".md" and anchor not in anchors(linked.read_text("utf-8"))


def test_links_between_documents_resolve(tracked: list[Path]) -> None:
    pages = [path for path in tracked if path.suffix == ".md"]
    assert ROOT / "README.md" in pages
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in LINK.findall(FENCE.sub("", page.read_text("utf-8")))
        if is_dead(page, target)
    ]
    assert dead == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Some words, here\n")
    assert is_dead(page, "absent.md")
    assert is_dead(page, "#other-words")
    assert is_dead(page, "page.md#other")
    assert not is_dead(page, "#some-words-here")
    assert not is_dead(page, "https://example.org/x")


def test_the_gates_of_make_check_pass() -> None:
    done = subprocess.run(["make", "-s", "gates"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "import " + "pickle",
        "    from " + "joblib import load",
        "np.load(path, allow_pickle" + "=True)",
        "torch" + ".load(path)",
        "--extra-" + "index" + "-url x",
        "get " + "https://files.python" + "hosted.example",
    ],
)
def test_the_gates_of_make_check_refuse(tmp_path: Path, line: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bad.py").write_text(f"{line}\n")
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    done = subprocess.run(["make", "-s", "gates"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stdout.startswith("bad.py:1:")

"""What killed builds leave behind goes; what somebody still writes, or may still want to see, stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from factories import write_tiny_bundle
from served import wait_for

from service.bundle.leftovers import hold, remove_leftovers
from service.bundle.writer import BundleWriter

HOUR, DAY = 3600.0, 86_400.0
WRITES = """
import sys, pathlib
from service.bundle.writer import BundleWriter
with BundleWriter(pathlib.Path(sys.argv[1])) as writer:
    writer.add_json("a", {})
    print("writing", flush=True)
    sys.stdin.read()
"""


def made(bundles: Path, name: str, age_s: float) -> Path:
    folder = bundles / name
    (folder / "als").mkdir(parents=True)
    (folder / "als" / "file").write_text("x")
    os.utime(folder, (1e9 - age_s, 1e9 - age_s))
    return folder


def test_only_the_old_that_nobody_holds_are_removed(tmp_path: Path) -> None:
    old, young = made(tmp_path, ".writing-1", 2 * HOUR), made(tmp_path, ".writing-2", HOUR / 2)
    held, bundle = made(tmp_path, ".writing-3", 2 * HOUR), made(tmp_path, "0123456789abcdef", 90 * DAY)
    aside, lately = made(tmp_path, ".damaged-1", 8 * DAY), made(tmp_path, ".damaged-2", DAY)
    link = tmp_path / ".writing-link"
    link.symlink_to(bundle)
    os.utime(link, (0, 0), follow_symlinks=False)
    descriptor = hold(held)
    try:
        assert sorted(remove_leftovers(tmp_path, 1e9)) == [".damaged-1", ".writing-1"]
    finally:
        os.close(descriptor)
    assert not old.exists()
    assert not aside.exists()
    assert all(folder.exists() for folder in (young, held, bundle, lately, link))
    assert remove_leftovers(tmp_path, 1e9) == [".writing-3"]
    assert remove_leftovers(tmp_path / "nowhere", 1e9) == []


def test_a_killed_writer_s_folder_goes_with_a_later_build_and_a_living_one_s_stays(tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITES, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"writing\n"
    (left,) = bundles.glob(".writing-*")
    os.utime(left, (0, 0))
    with BundleWriter(tmp_path):
        assert left.exists()
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    process.stdin.close()
    process.stdout.close()
    os.utime(left, (0, 0))
    write_tiny_bundle(tmp_path)
    wait_for(lambda: not left.exists(), "the folder to go")
    assert list(bundles.glob(".*")) == []

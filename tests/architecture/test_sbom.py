"""The bill of materials names what the serving image installs, each with the hashes that are pinned."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parents[2]


def test_the_bill_of_materials_names_every_pinned_package_of_the_image_with_its_hashes(
    tmp_path: Path,
) -> None:
    out = tmp_path / "sbom.json"
    subprocess.run(["make", "--silent", "sbom", f"OUT={out}"], cwd=ROOT, check=True, capture_output=True)
    listed = {part["name"]: part for part in orjson.loads(out.read_bytes())["components"]}
    pinned = set(re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "requirements/serve.txt").read_text(), re.M))
    assert pinned <= set(listed)
    for name in pinned:
        [distribution] = listed[name]["externalReferences"]
        assert all(entry["alg"] == "SHA-256" for entry in distribution["hashes"]), name
        assert distribution["hashes"], name

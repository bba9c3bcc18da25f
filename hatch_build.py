"""Compile `service/native` into the package: beside its sources for an editable install, into the wheel otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

_ROOM = "service/native"


class NativeBuild(BuildHookInterface):
    """Runs setuptools' compiler, which knows every platform's flags."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 (hatchling's signature)
        """Compile, and tell hatchling what came of it."""
        room = Path(self.root) / _ROOM
        extension = Extension(
            "service.native._native",
            sources=[str(path.relative_to(self.root)) for path in sorted(room.glob("*.c"))],
            depends=[f"{_ROOM}/native.h", f"{_ROOM}/scan.h"],
            include_dirs=[np.get_include()],
            # Contracting a product and a sum into one rounding would give other bits on processors that can.
            extra_compile_args=[
                "-O3",
                "-std=c11",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fvisibility=hidden",  # else what files share could not be inlined
                "-Wall",
                "-Wextra",
                "-Wno-missing-field-initializers",
                "-Wno-cast-function-type",
            ],
        )
        command = Distribution({"name": "reco-service", "ext_modules": [extension]}).get_command_obj(
            "build_ext"
        )
        command.inplace, command.build_temp, command.force = True, str(Path(self.root) / "build"), True
        command.ensure_finalized()
        command.run()
        build_data["pure_python"], build_data["infer_tag"] = False, True
        build_data["artifacts"].append(f"{_ROOM}/*.so")

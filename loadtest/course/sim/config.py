"""The environment's YAML file: where the tracks, their embeddings and the users are, and where the service listens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from loadtest.simulator.errors import SimulatorError


@dataclass(frozen=True, slots=True)
class EnvConfig:
    """Paths are relative to where the program runs, as the course has them."""

    tracks: Path
    embeddings: Path
    users: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        """Where the recommender answers."""
        return f"http://{self.host}:{self.port}"


def read_config(path: Path) -> EnvConfig:
    """Read and check. Raises SimulatorError naming file and key."""
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SimulatorError(f"{path}: not YAML: {error}") from None
    text = _Keys(path, document)
    port = text.of("remote_recommender_config", "port", int)
    if not 0 < port < 65536:
        raise SimulatorError(f"{path}: remote_recommender_config.port: {port} is no port")
    return EnvConfig(
        Path(text.of("track_catalog_config", "track_meta_path", str)),
        Path(text.of("track_catalog_config", "track_embeddings_path", str)),
        Path(text.of("user_catalog_config", "user_catalog_path", str)),
        text.of("remote_recommender_config", "host", str),
        port,
    )


class _Keys:
    def __init__(self, path: Path, document: Any) -> None:
        self._path, self._document = path, document if isinstance(document, dict) else {}

    def of(self, section: str, key: str, kind: type[Any]) -> Any:
        """A value of a section. Raises SimulatorError where it is missing or of another kind."""
        found = self._document.get(section)
        value = found.get(key) if isinstance(found, dict) else None
        if type(value) is not kind:
            wanted = "a whole number" if kind is int else "text"
            raise SimulatorError(f"{self._path}: {section}.{key}: must be {wanted}, found {value!r}")
        return value

"""Opens the published bundle of an artifacts folder as the service would."""

from __future__ import annotations

from pathlib import Path

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import InputError, ModelNotFound
from service.recommender.live import LiveBundle, LiveModel, go_live


def open_published(artifacts: Path) -> LiveBundle:
    """Load, verify and make live what is published. Raises InputError where nothing is; BundleRefused."""
    return go_live(load_bundle(ArtifactStore(artifacts).current()))


def model_of(live: LiveBundle, name: str) -> LiveModel:
    """A model by name, `default` included. Raises InputError naming those there are."""
    try:
        return live.resolve(name)
    except ModelNotFound as error:
        known = ", ".join(sorted(live.models))
        raise InputError(f"--model: bundle {live.bundle_id} has no {name!r}; it holds {known}") from error

"""Which routes an app has beside the hot one: /v1, and the profiles that the settings switch on."""

from __future__ import annotations

from fastapi import FastAPI

from service.api import explain as v1_explain
from service.api import openapi, problems
from service.api.compat import botify, explain, handbook, mts
from service.api.error_handlers import ErrorFamilies
from service.api.events import events
from service.api.v1 import PREFIX, v1
from service.settings import Settings


def add_routes(app: FastAPI, families: ErrorFamilies, settings: Settings) -> None:
    """Add them, each with its family of errors, and the document that describes them all."""
    families.add(PREFIX + "/", problems.render)
    app.include_router(v1)
    app.include_router(v1_explain.router)
    if settings.events_dir is not None:
        app.include_router(events)
    if "mts" in settings.profiles:
        mts.join_families(families)
        app.include_router(mts.mts)
    if "explain" in settings.profiles:
        app.include_router(explain.explain)
    if "handbook" in settings.profiles:
        handbook.join_families(families, settings.handbook_error)
        app.include_router(handbook.handbook)
    if "botify" in settings.profiles:
        botify.join_families(families)
        app.include_router(botify.botify)
    openapi.describe(app, settings)

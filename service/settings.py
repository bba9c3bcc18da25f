"""The service's settings: one frozen object, built where a process starts and passed in.

Read from flags, then `RECO_*` variables, then a `.env` file, then the course template's names (`HOST`, `PORT`,
`LOG_LEVEL`, `K_RECS`), then the defaults below. Units are in the names: `_ms`, `_s`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from service.errors import InputError

PREFIX = "RECO_"
PROFILES = ("mts", "handbook", "explain", "botify")
BOTIFY_PORT = 5001
_TEMPLATE_NAMES = {"host": "HOST", "port": "PORT", "log_level": "LOG_LEVEL", "k": "K_RECS"}

CheckOrder = Literal["token,user,model", "token,model,user"]


def _words(value: object) -> object:
    """Split `a, b` into its words; what is not a string stays."""
    return (
        frozenset(word.strip() for word in value.split(",") if word.strip())
        if isinstance(value, str)
        else value
    )


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.strip().isdigit() else value


def _upper(value: object) -> object:
    return value.strip().upper() if isinstance(value, str) else value


def _no_spaces(value: object) -> object:
    return value.replace(" ", "") if isinstance(value, str) else value


Words = Annotated[frozenset[str], NoDecode, BeforeValidator(_words)]


class TemplateNames(PydanticBaseSettingsSource):
    """Variables that services made from the course template are already run with; any RECO_ name wins over them."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - pydantic's
        """Value of one field, its key, and that it is not JSON."""
        return os.environ.get(_TEMPLATE_NAMES.get(field_name, "")) or None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """All that are set."""
        found = {field: os.environ.get(name) for field, name in _TEMPLATE_NAMES.items()}
        return {field: value for field, value in found.items() if value}


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        validate_default=True,
    )

    artifacts: Path = Field(
        Path("artifacts"), description="folder of bundles, as 'reco build --out' wrote it"
    )
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(0, ge=0, le=1024, description="processes; 0 is one a core")
    worker_slot: int | None = Field(
        None, ge=0, description="which worker this process is; set by the supervisor"
    )
    budget_ms: float = Field(
        50.0, gt=0, le=60_000, description="time a request may take before the fallback answers"
    )
    k: int = Field(10, ge=1, description="items in an answer that names no k")
    k_max: int = Field(200, ge=1, le=10_000, description="most items a request may ask for")
    max_user_id: int = Field(10**9, ge=0, lt=2**63, description="largest integer user id; above it is a 404")
    retriever: Literal["auto", "exact", "hnsw", "ivf"] = Field(
        "auto", description="overrides the retriever chosen at build time"
    )
    response_cache: int = Field(
        0, ge=0, le=10_000_000, description="answers of /reco that each worker keeps to give again; 0 is none"
    )
    auth: bool = Field(True, description="off lets everybody in")
    tokens: SecretStr | None = Field(
        None, description="'name:token[:scope|scope],…'; a name may have several tokens"
    )
    tokens_file: Path | None = Field(
        None, description="file of such entries, one a line; read again when it changes"
    )
    missing_token_status: Annotated[Literal[401, 403], BeforeValidator(_number)] = Field(
        401, description="status for a request without a token"
    )
    check_order: Annotated[CheckOrder, BeforeValidator(_no_spaces)] = Field(
        "token,user,model", description="which fault of a /reco request is named first"
    )
    cors_origins: Words = Field(
        frozenset({"*"}), description="origins whose pages may read answers; * is any"
    )
    profiles: Words = Field(frozenset(), description=f"compatibility routes to add: {', '.join(PROFILES)}")
    compat_auth: bool = Field(True, description="off opens the profiles' routes to callers without a token")
    handbook_error: Literal["empty", "null"] = Field(
        "empty", description="what the handbook profile's failures put in 'recommendations'"
    )
    batch_max: int = Field(100, ge=1, le=1000, description="most queries in one batch")
    admin_port: int | None = Field(
        None, ge=0, le=65535, description="moves /metrics and admin routes to a loopback port"
    )
    admission: bool = Field(True, description="off answers every request, however late: for comparisons")
    max_in_flight: int = Field(
        256, ge=1, le=100_000, description="most requests a worker holds open at once (waiting for Redis, say)"
    )  # fmt: skip
    trusted_proxies: Words = Field(
        frozenset(), description="addresses or networks of proxies whose X-Request-Start is believed"
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        "INFO", description="least severe level that is logged"
    )
    access_log: bool = Field(True, description="one line of JSON a request")
    log_user_ids: bool = Field(True, description="off replaces the user id in logged URLs by a keyed hash")
    reload_poll_s: float = Field(
        1.0, gt=0, le=3600, description="how often to look for a newly published bundle"
    )
    reload_limit_s: float = Field(
        300.0, gt=0, le=86_400, description="how long loading a new bundle may take before it is given up"
    )
    drain_wait_s: float = Field(
        0.5, ge=0, le=3600, description="how long to serve on, unready, before a shutdown closes the port"
    )
    drain_s: float = Field(
        10.0, ge=0, le=3600, description="how long open requests may take to end on shutdown"
    )
    events_dir: Path | None = Field(
        None, description="folder to log events in; without it there is no log and no /v1/events"
    )
    events_segment_mb: float = Field(
        16.0, gt=0, le=1024, description="size at which a new file of the event log is begun"
    )
    events_retain_mb: float = Field(
        0.0, ge=0, description="size of a worker's events above which the oldest file goes; 0 keeps all"
    )
    events_retain_days: float = Field(
        0.0, ge=0, description="age after which a file of the event log goes; 0 keeps all"
    )
    events_redis_url: SecretStr | None = Field(
        None, description="Redis whose stream 'reco:events' is told what the event log wrote"
    )
    events_stream_length: int = Field(100_000, ge=1, description="about how many records that stream keeps")
    events_wait_ms: float = Field(
        2000.0, gt=0, le=60_000, description="how long events may wait for the disk before they are a 503"
    )
    history: Literal["off", "memory", "sqlite", "redis"] = Field(
        "off", description="where to keep what users did since the bundle was built"
    )
    history_path: Path | None = Field(None, description="file of RECO_HISTORY=sqlite, on a local disk")
    history_length: int = Field(200, ge=1, le=2000, description="newest items kept of a user")
    history_ttl_s: float = Field(
        30 * 86_400.0, gt=0, le=10 * 365 * 86_400.0,
        description="how long after a user's last event their history is forgotten",
    )  # fmt: skip
    history_users: int = Field(
        50_000, ge=1, description="most users that RECO_HISTORY=memory keeps; the least recent goes first"
    )
    redis_url: SecretStr | None = Field(
        None, description="redis://[user:password@]host:port/db, rediss://… or unix:///path.sock?db=0"
    )
    redis_timeout_ms: float = Field(
        10.0, gt=0, le=10_000, description="most that a request waits for Redis, its own budget permitting"
    )
    botify_experiments: Path | None = Field(
        None, description="TOML file of the botify profile's experiments; without it the course's own"
    )
    botify_run: Words = Field(
        frozenset(), description="experiments to run: of the course's AA,STICKY_ARTIST; of another file all"
    )
    botify_log: Path = Field(Path("log/data.json"), description="file that the botify profile logs to")
    botify_seed: int | None = Field(
        None, ge=0, description="seed of the botify profile's chance; without it every start differs"
    )
    experiments: Path | None = Field(
        None, description="TOML file of experiments and shadow plans, read once at the start"
    )
    rules: Path | None = Field(
        None, description="TOML file of what is pinned, boosted and buried when, read once at the start"
    )
    max_requests: int = Field(
        0, ge=0, description="requests after which a worker is replaced, give or take a tenth; 0 is never"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic calls it with this one too
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources; the first that knows a field wins."""
        return init_settings, env_settings, dotenv_settings, TemplateNames(settings_cls)

    @field_validator("profiles")
    @classmethod
    def _known_profiles(cls, value: frozenset[str]) -> frozenset[str]:
        unknown = sorted(value.difference(PROFILES))
        if unknown:
            raise ValueError(f"there is no profile {unknown[0]!r}; there are: {', '.join(PROFILES)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _as_botify_runs(cls, given: Any) -> Any:
        """Profile botify listens where its clients look for it. Without Redis only one process knows what was heard."""
        profiles = _words(given.get("profiles")) if isinstance(given, dict) else None
        if isinstance(profiles, Collection) and "botify" in profiles:
            given.setdefault("port", BOTIFY_PORT)
            if given.get("redis_url") is None:
                given.setdefault("workers", 1)
        return given

    @model_validator(mode="after")
    def _k_within_k_max(self) -> Self:
        if self.k > self.k_max:
            raise ValueError(f"RECO_K={self.k} is above RECO_K_MAX={self.k_max}")
        return self

    @model_validator(mode="after")
    def _history_has_a_place(self) -> Self:
        if self.history == "sqlite" and self.history_path is None:
            raise ValueError("RECO_HISTORY=sqlite needs RECO_HISTORY_PATH")
        if self.history == "redis" and self.redis_url is None:
            raise ValueError("RECO_HISTORY=redis needs RECO_REDIS_URL")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: frozenset[str]) -> frozenset[str]:
        for word in sorted(value):
            try:
                ipaddress.ip_network(word, strict=False)
            except ValueError:
                raise ValueError(f"{word!r} is no address and no network") from None
        return value

    @property
    def budget_s(self) -> float:
        """The budget in seconds."""
        return self.budget_ms / 1000


def load_settings(
    overrides: Mapping[str, Any] | None = None, *, env_file: Path | None = Path(".env")
) -> Settings:
    """Read the settings; `overrides` (from flags) win over all. Raises InputError naming the variable and its value."""
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    unknown = sorted(set(given).difference(Settings.model_fields))
    if unknown:
        raise InputError(f"there is no setting {unknown[0]!r}")
    try:
        # pydantic-settings takes the file per call by this name, which its generated signature does not show.
        return Settings(_env_file=env_file, **given)  # type: ignore[call-arg]  # pydantic-settings takes it
    except ValidationError as error:
        raise InputError(_say(error, given)) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{env_file}: not UTF-8 at byte {error.start}") from None


def _say(error: ValidationError, given: Mapping[str, Any]) -> str:
    parts = []
    for fault in error.errors(include_url=False, include_context=False):
        reason = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            parts.append(reason)
            continue
        field = str(fault["loc"][0])
        shown = "" if field == "tokens" else f"={fault['input']!s:.80}"
        parts.append(f"{_name_of(field, fault['input'], given)}{shown}: {reason}")
    return "; ".join(parts)


def _name_of(field: str, value: object, given: Mapping[str, Any]) -> str:
    """Name what a person set: the flag, the template's variable or ours."""
    if field in given:
        return f"--{field.replace('_', '-')}"
    name, template_name = f"{PREFIX}{field.upper()}", _TEMPLATE_NAMES.get(field, "")
    return template_name if name not in os.environ and os.environ.get(template_name) == value else name


def describe(settings: Settings) -> dict[str, Any]:
    """Effective settings as plain JSON values, secrets masked."""
    shown: dict[str, Any] = settings.model_dump(mode="json")
    return {name: sorted(value) if isinstance(value, list) else value for name, value in shown.items()}

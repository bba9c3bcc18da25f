"""Which experiments the botify profile runs, declared in a TOML file; users are divided exactly as botify does it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from service.errors import InputError
from service.policy.botify_assignment import assign
from service.recommender.botify.treatments import Treatment

SHIPPED = Path(__file__).with_suffix(".toml")
RUN_BY_DEFAULT = frozenset({"AA", "STICKY_ARTIST"})
"""Of the shipped file; of another one all are run."""
MOST_TREATMENTS = 10

_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    split: Annotated[int, Field(ge=1, le=MOST_TREATMENTS)] | None = None
    treatments: Annotated[tuple[Treatment, ...], Field(max_length=MOST_TREATMENTS, strict=False)] = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> _Declared:
        if (self.split is None) == (not self.treatments):
            raise ValueError("give either 'treatments' or, to only assign and log, 'split'")
        return self


@dataclass(frozen=True, slots=True)
class Experiment:
    """A division of all users into `split` parts. `treatments`: what each part listens to; none: it is only logged."""

    name: str
    split: int
    treatments: tuple[Treatment, ...] = ()


@dataclass(frozen=True, slots=True)
class BotifyExperiments:
    """Those that run. At most one decides what is played."""

    experiments: tuple[Experiment, ...]
    serving: Experiment | None

    def assign(self, user_id: int) -> dict[str, str]:
        """Experiment -> the user's treatment (C, T1, T2, …), in the order of the file."""
        return {
            one.name: assign(one.name, user_id, one.split) if one.split > 1 else "C"
            for one in self.experiments
        }

    def played(self, assigned: Mapping[str, str]) -> int:
        """Number of the treatment that decides what is played: 0 is C, 1 is T1; 0 too where none does."""
        return 0 if self.serving is None else number_of(assigned[self.serving.name])


def number_of(label: str) -> int:
    """Number of a treatment by its label."""
    return 0 if label == "C" else int(label[1:])


def read_experiments(path: Path | None, run: Iterable[str]) -> BotifyExperiments:
    """Read the file (None: the shipped one) and choose those to run (none named: see RUN_BY_DEFAULT).

    Raises InputError naming file, experiment and key; also where two experiments would decide what is played.
    """
    file = path or SHIPPED
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"RECO_BOTIFY_EXPERIMENTS={file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not TOML: {error}") from None
    try:
        declared = TypeAdapter(dict[_Name, _Declared]).validate_python(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in fault["loc"] if part != "[key]")
        raise InputError(f"{file}: {place}: {fault['msg'].removeprefix('Value error, ')}") from None
    wanted = frozenset(run) or (RUN_BY_DEFAULT if path is None else frozenset(declared))
    unknown = sorted(wanted.difference(declared))
    if unknown:
        raise InputError(
            f"RECO_BOTIFY_RUN: {file} declares no experiment {unknown[0]!r}; it declares: {', '.join(declared)}"
        )
    chosen = tuple(
        Experiment(name, one.split or len(one.treatments), one.treatments)
        for name, one in declared.items()
        if name in wanted
    )
    serving = [experiment for experiment in chosen if experiment.treatments]
    if len(serving) > 1:
        raise InputError(
            f"{file}: {serving[0].name} and {serving[1].name} would both decide what is played; "
            "name the one to run in RECO_BOTIFY_RUN"
        )
    return BotifyExperiments(chosen, serving[0] if serving else None)

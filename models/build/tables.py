"""What a build and a search tell people: tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from rich.table import Table

from models.build.build import CHOSEN_BY, Built
from models.build.second_stage import Learned
from models.build.tuning import Trial

SHOWN = (CHOSEN_BY, "Recall@10", "MAP@10", "coverage@10")


def models_table(built: Built) -> Table:
    """Validation metrics by model, the best first."""
    table = Table(title=f"bundle {built.bundle_id}: validation, through the serving line (* default)")
    table.add_column("model", no_wrap=True)
    for name in SHOWN:
        table.add_column(name, justify="right")
    table.add_column("its 95%", justify="right", no_wrap=True)
    table.add_column("users", justify="right")
    ranked = sorted(built.evaluations.items(), key=lambda pair: -pair[1].metrics[CHOSEN_BY])
    for name, evaluation in ranked:
        low, high = evaluation.ci[CHOSEN_BY]
        marked = f"[bold]{name} *[/]" if name == built.default_model else name
        values = [f"{evaluation.metrics[metric]:.4f}" for metric in SHOWN]
        table.add_row(marked, *values, f"{low:.4f} … {high:.4f}", f"{evaluation.users:,}")
    return table


def steps_table(built: Built) -> Table:
    """Seconds by step, and their total."""
    table = Table(title="seconds")
    for name in built.seconds:
        table.add_column(name, justify="right")
    table.add_row(*(f"{seconds:.1f}" for seconds in built.seconds.values()))
    return table


def ranker_table(learned: Learned, *, most: int = 10) -> Table:
    """What the ranker listens to: its features by mean |SHAP|, the largest first."""
    table = Table(title=f"two_stage: {learned.final.rounds} trees of {learned.final.library}")
    table.add_column("feature", no_wrap=True)
    table.add_column("mean |SHAP|", justify="right")
    for name, value in list(learned.contributions.items())[:most]:
        table.add_row(name, f"{value:.5f}")
    return table


def avatars_table(built: Built) -> Table:
    """What each avatar is recommended, and the leading genres' shares."""
    table = Table(title=f"avatars, by {built.default_model}")
    for name in built.avatars:
        table.add_column(name)
    table.add_row(*("\n".join(view.titles) for view in built.avatars.values()))
    table.add_row(
        *(
            ", ".join(f"{genre} {share:.0%}" for genre, share in list(view.genres.items())[:4])
            for view in built.avatars.values()
        )
    )
    return table


def trials_table(name: str, trials: Sequence[Trial[Any]], *, most: int = 15) -> Table:
    """The best trials of a search; only settings that were varied are shown."""
    table = Table(title=f"{name}: best of {len(trials)} trials")
    table.add_column(CHOSEN_BY, justify="right")
    settings = [asdict(trial.config) for trial in trials]
    varied = [
        field.name
        for field in fields(trials[0].config)
        if len({repr(setting[field.name]) for setting in settings}) > 1
    ]
    for setting in varied:
        table.add_column(setting, justify="right")
    table.add_column("seconds", justify="right")
    for trial in sorted(trials, key=lambda trial: -trial.score)[:most]:
        values = [str(getattr(trial.config, setting)) for setting in varied]
        table.add_row(f"{trial.score:.4f}", *values, f"{trial.seconds:.1f}")
    return table

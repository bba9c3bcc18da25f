"""The report's pictures."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from models.drawing import COLOURS, INK, LINE, MUTED, RC, as_svg, colour_of, panels
from models.evaluation.beyond_accuracy import Training
from models.evaluation.run import Evaluation

_CURVE_POINTS = 300
_STYLES = ("-", "--", "-.", ":")


def bars(evaluations: Sequence[Evaluation], k: int, names: Sequence[str]) -> str:
    """A panel a metric, a bar a model, whiskers of 95% where there is an interval."""
    models = [evaluation.model for evaluation in evaluations]
    figure, columns = panels(len(names), 2.55, 0.34 * len(models) + 0.75)
    with mpl.rc_context(RC):
        places = np.arange(len(models))[::-1]
        for number, (axes, name) in enumerate(zip(columns, names, strict=True)):
            key = f"{name}@{k}"
            values = np.array([evaluation.metrics.get(key, 0.0) for evaluation in evaluations])
            low, high = (
                np.array([e.ci[key][side] if key in e.ci else e.metrics.get(key, 0.0) for e in evaluations])
                for side in (0, 1)
            )
            axes.barh(
                places, values, height=0.62, color=[colour_of(n) for n in range(len(models))], alpha=0.9
            )
            axes.hlines(places, low, high, color=INK, linewidth=1.1)
            widest = max(float(high.max()), float(values.max()), 1e-9)
            for place, number_shown, end in zip(places, values, np.maximum(high, values), strict=True):
                axes.text(end + 0.02 * widest, place, f"{number_shown:.3f}", va="center", fontsize=8)
            axes.set_xlim(0, widest * 1.24)
            axes.set_yticks(places, models if number == 0 else [""] * len(models))
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.set_title(key, loc="left", fontsize=9.5, fontweight="bold")
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3, prune="upper"))
    return as_svg(figure, "bars")


def long_tail(evaluations: Sequence[Evaluation], training: Training) -> str:
    """Share of exposure that goes to the most popular items, by model, beside their share of training."""
    figure, (axes,) = panels(1, 7.6, 3.3)
    seen = np.flatnonzero(training.interactions)
    order = seen[np.argsort(-training.interactions[seen], kind="stable")]
    # As dense as the square-root axis can show: a page stays small whatever the catalogue.
    ends = np.unique(np.round(np.linspace(0, 1, _CURVE_POINTS) ** 2 * len(order)).astype(np.int64))
    share_of_items = ends / max(len(order), 1)

    def cumulative(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        shown = np.zeros(max(len(counts), len(training.interactions)), np.float64)
        shown[: len(counts)] = counts
        running = np.concatenate(([0.0], np.cumsum(shown[order])))
        return np.asarray(running[ends] / max(running[-1], 1.0))

    with mpl.rc_context(RC):
        axes.fill_between(
            share_of_items,
            cumulative(training.interactions),
            color=LINE,
            alpha=0.6,
            linewidth=0,
            label="training",
        )
        for number, evaluation in enumerate(evaluations):
            axes.plot(
                share_of_items,
                cumulative(evaluation.exposure),
                color=colour_of(number),
                linestyle=_STYLES[number // len(COLOURS) % len(_STYLES)],
                linewidth=1.6,
                label=evaluation.model,
            )
        axes.plot(
            share_of_items,
            share_of_items,
            color=MUTED,
            linewidth=0.8,
            linestyle=":",
            label="every item equally",
        )
        axes.set_xscale("function", functions=(np.sqrt, np.square))
        axes.set_xticks(
            [0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 1], ["0", "1%", "5%", "10%", "20%", "40%", "60%", "100%"]
        )
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("most popular items, share of the catalogue")
        axes.set_ylabel("share of recommended places")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
    return as_svg(figure, "long-tail")


def latency(evaluations: Sequence[Evaluation]) -> str:
    """A row a model: how long the line took a user, in microseconds on a log axis; ticks at the median and the p99."""
    figure, columns = panels(1, 8.4, 0.5 * len(evaluations) + 0.7)
    axes = columns[0]
    with mpl.rc_context(RC):
        times = [np.maximum(1e6 * evaluation.replay.seconds, 0.1) for evaluation in evaluations]
        least, most = min(map(np.min, times)), max(np.quantile(t, 0.999) for t in times)
        bins = np.geomspace(least * 0.95, max(most * 1.1, least * 2), 90)
        for number, microseconds in enumerate(times):
            base = len(evaluations) - 1 - number
            counts, _ = np.histogram(np.minimum(microseconds, bins[-1]), bins)
            heights = 0.82 * counts / max(counts.max(), 1)
            axes.fill_between(
                bins[:-1], base, base + heights, step="post", color=colour_of(number), alpha=0.85, linewidth=0
            )
            axes.axhline(base, color=LINE, linewidth=0.8)
            for quantile, height in ((0.5, 0.82), (0.99, 0.5)):
                at = float(np.quantile(microseconds, quantile))
                axes.vlines(min(at, bins[-1]), base, base + height, color=INK, linewidth=1)
            p50, p99 = np.quantile(microseconds, [0.5, 0.99])
            axes.text(
                1.01,
                base + 0.3,
                f"p50 {p50:,.0f} · p99 {p99:,.0f} µs",
                fontsize=8,
                transform=axes.get_yaxis_transform(),
            )
        axes.set_xscale("log")
        axes.set_xlim(bins[0], bins[-1])
        axes.set_ylim(0, len(evaluations))
        axes.set_yticks(
            np.arange(len(evaluations)) + 0.3, [evaluation.model for evaluation in reversed(evaluations)]
        )
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda at, _: f"{at:,.0f}"))
        axes.set_xlabel("microseconds in the serving line, one user after another")
    return as_svg(figure, "latency")

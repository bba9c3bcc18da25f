"""Two levels on viewings in KION's schema: what a ranker adds to the retriever whose candidates it orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import polars as pl
import pytest

from models.build import second_stage
from models.build.build import Built, Order, build
from models.commands.compare import metrics_table
from models.data.generator import generate
from models.evaluation.comparison import Comparison, compare
from models.lightfm import lightfm
from models.ranker.config import Config
from service.bundle.reader import load_bundle
from service.recommender.live import go_live

pytest.importorskip("lightgbm")
pytest.importorskip("lightfm")
WATCHED = 300
"""Seconds; a shorter viewing says nothing."""
TEST_DAYS = 14


@dataclass(frozen=True)
class TwoLevels:
    built: Built
    found: Comparison


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> TwoLevels:
    """LightFM and a ranker of its candidates, learned before the last 14 days and asked about them."""
    root = tmp_path_factory.mktemp("two-levels")
    generate(root / "data", n_users=1_500, n_items=200, n_interactions=30_000, seed=5)
    events = pl.read_csv(root / "data" / "interactions.csv", try_parse_dates=True)
    events = events.filter(pl.col("total_dur") > WATCHED)
    ends = events.select(pl.col("last_watch_dt").max()).item() - timedelta(days=TEST_DAYS)
    train, test = (
        events.filter(side) for side in (pl.col("last_watch_dt") <= ends, pl.col("last_watch_dt") > ends)
    )
    train.write_csv(root / "data" / "interactions.csv")
    test = (
        test.join(train, on="user_id", how="semi")
        .join(train, on="item_id", how="semi")
        .join(train, on=["user_id", "item_id"], how="anti")
    )
    built = build(
        Order(
            data=root / "data",
            out=root / "artifacts",
            models=("lightfm", second_stage.NAME),
            configs={
                "lightfm": lightfm.Config(factors=64, learning_rate=0.03, max_sampled=5, epochs=20),
                second_stage.NAME: Config(quota=100, popular_quota=1, rounds=120, least_rows=100),
            },
            effort="off",
        ),
        progress=False,
    )
    live = go_live(load_bundle(built.path))
    names = "lightfm", second_stage.NAME
    found = compare(
        (live, live), names, test["user_id"].to_list(), test["item_id"].to_list(), k=10, examples=0
    )
    return TwoLevels(built, found)


@pytest.mark.parametrize("metric", ["Precision@10", "Recall@10", "MAP@10"])
def test_a_ranker_of_candidates_beats_what_retrieved_them(levels: TwoLevels, metric: str) -> None:
    difference = levels.found.metrics[metric]
    assert levels.found.users > 500
    assert difference.lower > 0
    assert difference.lift is not None
    assert difference.lift > 0.05


def test_the_table_says_the_lift_in_percent(levels: TwoLevels) -> None:
    table = metrics_table(levels.found)
    lift = levels.found.metrics["MAP@10"].lift
    assert lift is not None
    rows = dict(zip(table.columns[0].cells, table.columns[-1].cells, strict=True))
    assert table.columns[-1].header == "lift"
    assert rows["MAP@10"] == f"{lift:+.1%}"


def test_the_ranker_listens_to_its_retriever(levels: TwoLevels) -> None:
    """The report names place and score among the retriever's candidates, and one of what says these comes first."""
    learned = levels.built.ranker
    assert isinstance(learned, second_stage.Learned)
    assert {source.model for source in learned.sources} == {"lightfm", "popular"}
    names = list(learned.contributions)
    by_place = {"best_rank", "rank:lightfm", "agreement"}
    by_score = {"score:lightfm", "scaled:lightfm", "cosine:lightfm:mean"}
    assert by_place & set(names[:5])
    assert names[0] in by_place | by_score

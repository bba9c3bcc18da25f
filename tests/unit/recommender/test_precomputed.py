"""Candidates computed beforehand answer what a search answers, and only while the question is the same."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import write_tiny_bundle
from forgery import array_of, forge
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.commands import bundle_precompute
from service.domain import Deadline, ItemFilter, Plan, Query, Slate
from service.errors import BundleRefused, InputError
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.precomputed import ROLES
from service.recommender.user_state import user_state

WIDTH = 12
USERS = st.one_of(st.sampled_from(range(100, 262, 3)), st.sampled_from([None, 274, 999_999]))
ITEMS = st.integers(-1, 41).map(lambda row: 10 + 2 * row)


def seldom(strategy: st.SearchStrategy[Any], usually: Any) -> st.SearchStrategy[Any]:
    return st.integers(0, 5).flatmap(lambda n: strategy if n == 0 else st.just(usually))


FILTERS = st.one_of(
    st.builds(ItemFilter, deny=st.frozensets(ITEMS, max_size=4)),
    st.builds(ItemFilter, allow=st.frozensets(ITEMS, max_size=20)),
    st.just(ItemFilter(attributes={"kind": ("series",)})),
)
LISTED = st.lists(ITEMS, max_size=5).map(tuple)
QUERIES = st.builds(
    Query, USERS, st.one_of(st.integers(1, 10), st.integers(1, 45)), seldom(LISTED, None), seldom(FILTERS, None),
    seldom(st.just(False), usually=True), seldom(LISTED, ()),
)  # fmt: skip


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    bundle_precompute.configure(parser)
    return bundle_precompute.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("precomputed")
    write_tiny_bundle(root)
    bundle_precompute.FASTER = 0.0  # forty items are searched as fast as a list is looked up
    assert run("--artifacts", root, "--width", WIDTH) == 0
    return root


@pytest.fixture(scope="module")
def lists(root: Path) -> LiveBundle:
    return go_live(load_bundle(ArtifactStore(root).current()))


@pytest.fixture(scope="module")
def searched(root: Path) -> LiveBundle:
    live = go_live(load_bundle(ArtifactStore(root).current()), retriever="exact")
    assert all(model.precomputed is None for model in live.models.values())
    return live


def answers(slate: Slate) -> tuple[Any, ...]:
    return slate.source, slate.n_personal, slate.top_up, slate.degraded, len(slate.item_ids)


def test_a_slate_from_lists_is_the_slate_of_a_search(lists: LiveBundle, searched: LiveBundle) -> None:
    listed = 0

    @settings(max_examples=600, deadline=None, derandomize=True, database=None)
    @given(QUERIES, st.sampled_from(["als", "knn", "ease"]), st.sampled_from([0, 0, WIDTH, 30]))
    def check(query: Query, model: str, n_candidates: int) -> None:
        nonlocal listed
        plan = Plan(model, n_candidates)
        ours, theirs = (recommend(query, plan, live, Deadline.none()) for live in (lists, searched))
        assert answers(ours) == answers(theirs)
        # A solved vector's last bits depend on where in memory it lies.
        assert ours.scores == pytest.approx(theirs.scores, rel=1e-5, abs=1e-5)
        # The others' scores are counts, and which of two equal ones comes first is nobody's promise.
        if model == "als":
            assert ours.item_ids == theirs.item_ids
        user = user_state(query, lists.bundle)
        found = lists.models[model].precomputed
        assert found is not None
        rules = Eligible(user.history, None)
        listed += query.filter is None and found.find(user, max(query.k, n_candidates), rules) is not None

    check()
    assert listed > 50


def test_the_bundle_is_another_with_the_same_files_and_lists_beside(root: Path) -> None:
    store = ArtifactStore(root)
    first, second = (load_bundle(store.path_of(bundle_id)) for bundle_id in store.list())
    assert store.current() == second.path
    assert store.published().history == (first.bundle_id,)
    assert first.manifest.files.items() < second.manifest.files.items()
    for name in ("als", "knn", "ease"):
        assert second.manifest.models[name].precomputed == WIDTH
        assert set(ROLES) < set(second.models[name].arrays)
    assert second.manifest.models["lists"].precomputed is None


def test_a_search_that_costs_no_more_than_a_list_is_left_a_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_bundle(tmp_path)
    monkeypatch.setattr(bundle_precompute, "FASTER", 1e9)
    assert run("--artifacts", tmp_path, "--models", "als") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["bundle"] == said["of"] == path.name
    assert [(model["model"], model["kept"]) for model in said["models"]] == [("als", False)]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--width", 0], "--width 0"), (["--width", 1001], "--width 1001"), (["--models", "popular"], "'popular'"),
        (["--models", "als"], "already"),
    ],
)  # fmt: skip
def test_what_cannot_be_computed_is_refused(root: Path, words: list[object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        run("--artifacts", root, *words)


def seen_first(items: Any, bundle: Any) -> Any:
    items = items.copy()
    indptr = bundle.models["als"].arrays["precomputed_indptr"]
    row = int(np.flatnonzero(np.diff(indptr))[0])
    items[indptr[row]] = bundle.history_of(row)[0]
    return items


@pytest.mark.parametrize(
    ("role", "change", "reason"),
    [
        ("precomputed_items", seen_first, "what they have seen"),
        ("precomputed_items", lambda items, _: items * 0, "lists an item twice"),
        ("precomputed_scores", lambda scores, _: scores[::-1].copy(), "scores must fall"),
        ("precomputed_scores", lambda scores, _: scores + 1, "not listed what a search answers"),
        ("precomputed_indptr", lambda indptr, _: indptr[:-1].copy(), "precomputed_indptr"),
    ],
)
def test_forged_lists_are_refused(
    root: Path, tmp_path: Path, role: str, change: Callable[[Any, Any], Any], reason: str
) -> None:
    bundle = load_bundle(ArtifactStore(root).current())
    file = bundle.manifest.models["als"].files[role]
    copy = Path(shutil.copytree(bundle.path, tmp_path / "copy"))
    forged = forge(copy, {file: change(array_of(bundle.path, file), bundle)})
    with pytest.raises(BundleRefused, match=reason):
        go_live(load_bundle(forged))

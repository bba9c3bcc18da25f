"""What a load test does, and what it counts as a fault."""

from __future__ import annotations

import argparse
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.answers import fault_of
from loadtest.scenario import Request, Scenario, ThinkTime

OPTIONS = {
    "ids": "1..50",
    "zipf": 1.0,
    "cold": 0.1,
    "think": "none",
    "k": 10,
    "models": "als, popular",
    "seed": 1,
    "token": "t",
}


def scenario(worker: int = 0, **changes: object) -> Scenario:
    return Scenario(argparse.Namespace(**{**OPTIONS, **changes}), worker=worker)


def test_think_time_is_drawn_within_its_ends() -> None:
    think, rng = ThinkTime.parse("0.5..2"), random.Random(1)
    pauses = [think.draw(rng) for _ in range(500)]
    assert 0.5 <= min(pauses) < 0.6
    assert 1.9 < max(pauses) <= 2


@pytest.mark.parametrize(("text", "pause"), [("none", 0.0), ("1", 1.0), ("1..1", 1.0)])
def test_think_time_may_be_fixed(text: str, pause: float) -> None:
    assert ThinkTime.parse(text).draw(random.Random(1)) == pause


@pytest.mark.parametrize("text", ["2..1", "-1", "soon", "", "1..x", "nan"])
def test_think_time_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="think time"):
        ThinkTime.parse(text)


def test_every_model_is_asked_and_k_is_passed_on() -> None:
    drawn = [scenario(k=7).next_request() for _ in range(1)]
    each = scenario(k=7)
    drawn += [each.next_request() for _ in range(100)]
    assert {request.model for request in drawn} == {"als", "popular"}
    assert all(request.path.endswith("?k=7") for request in drawn)


def test_workers_of_one_run_draw_different_users() -> None:
    first, second = scenario(worker=0), scenario(worker=1)
    assert [first.next_request() for _ in range(30)] != [second.next_request() for _ in range(30)]


def test_ids_are_quoted_in_the_path_and_absent_from_the_report() -> None:
    request = Request("a/b", "x y?/ü", cold=True, k=3)
    assert request.path == "/reco/a%2Fb/x%20y%3F%2F%C3%BC?k=3"
    assert request.name == "/reco/a/b (cold)"


@pytest.mark.parametrize(("token", "headers"), [("s3cret", {"Authorization": "Bearer s3cret"}), ("", {})])
def test_the_token_is_sent_when_there_is_one(token: str, headers: dict[str, str]) -> None:
    assert scenario(token=token).headers == headers


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("models", " , ", "models"),
        ("k", 0, "k must be"),
        ("cold", 1.5, "cold share"),
        ("zipf", -1.0, "Zipf exponent"),
        ("ids", "no", "user ids"),
        ("think", "x", "think time"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused(option: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        scenario(0, **{option: value})


def body(user: int | str, items: object) -> bytes:
    return json.dumps({"user_id": user, "items": items}).encode()


@given(st.integers(0, 10**9) | st.text(min_size=1), st.sets(st.integers(), min_size=1, max_size=30))
def test_a_right_answer_has_no_fault(user: int | str, items: set[int]) -> None:
    assert fault_of(200, body(user, list(items)), user=user, k=len(items)) is None


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (0, b"", "no answer"),
        (503, b"{}", "status 503"),
        (200, b"<html>", "not JSON"),
        (200, b"[1, 2]", "no list of items"),
        (200, b'{"user_id": 7, "items": 3}', "no list of items"),
        (200, body(8, [1, 2]), "another user's answer"),
        (200, body("7", [1, 2]), "another user's answer"),
        (200, body(7, [1]), "1 items instead of 2"),
        (200, body(7, [1, 2, 3]), "3 items instead of 2"),
        (200, body(7, [1, 1]), "an item twice"),
        (200, body(7, ["a", "a"]), "an item twice"),
    ],
)
def test_a_wrong_answer_is_a_fault_with_its_reason(status: int, answer: bytes, reason: str) -> None:
    assert fault_of(status, answer, user=7, k=2) == reason

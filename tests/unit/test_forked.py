"""Parts of a computation in forked processes: order, arrays, failures, memory."""

from __future__ import annotations

import mmap
import os
import signal
import time
from functools import partial
from typing import Any

import numpy as np
import pytest

from models import forked
from models.forked import Answer, answers, cores, peak_memory_mb, shares
from service.errors import InputError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that parts are forked on a machine of one core too."""
    monkeypatch.setattr(forked, "cores", lambda: 1 if forked._here.is_part else 2)


def told_by(number: int) -> Answer:
    return Answer({"number": number, "process": os.getpid()}, {"numbers": np.full(3, number, np.int16)})


def test_answers_come_in_the_order_of_the_parts() -> None:
    def slow_first(number: int) -> Answer:
        time.sleep(0.2 if number == 0 else 0.0)
        return told_by(number)

    heard: list[int] = []
    found = answers(
        [partial(slow_first, number) for number in range(5)], on_done=lambda at, _: heard.append(at)
    )
    assert [one.facts["number"] for one in found] == list(range(5))
    assert [one.arrays["numbers"].tolist() for one in found] == [[number] * 3 for number in range(5)]
    assert sorted(heard) == list(range(5))
    assert heard[0] != 0
    assert os.getpid() not in {one.facts["process"] for one in found}


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).T,
        np.empty((0, 7), np.float64),
        np.array([True, False]),
        np.array(5, np.int64),
        np.array([np.nan, np.inf, -0.0]),
        np.array([["a", "bcd"]]),
    ],
)
def test_arrays_arrive_as_they_were(array: np.ndarray[Any, Any]) -> None:
    found = answers([lambda: Answer(arrays={"it": array}), Answer])
    arrived = found[0].arrays["it"]
    assert arrived.dtype == array.dtype
    assert arrived.shape == array.shape
    np.testing.assert_array_equal(arrived, array)
    arrived[...] = arrived  # it can be written to


def test_one_at_once_runs_here() -> None:
    found = answers([partial(told_by, number) for number in range(3)], at_once=1)
    assert {one.facts["process"] for one in found} == {os.getpid()}
    assert answers([partial(told_by, 1)])[0].facts["process"] == os.getpid()
    assert answers([]) == []


def test_a_part_forks_no_further() -> None:
    def nested() -> Answer:
        inner = answers([partial(told_by, number) for number in range(2)])
        return Answer({"own": os.getpid(), "inner": [one.facts["process"] for one in inner]})

    for one in answers([nested, nested]):
        assert set(one.facts["inner"]) == {one.facts["own"]}


def test_what_is_wrong_with_the_input_is_told_as_it_was() -> None:
    def refuse() -> Answer:
        raise InputError("there is nothing to learn from")

    with pytest.raises(InputError, match=r"^there is nothing to learn from$"):
        answers([refuse, partial(told_by, 1)])


def test_any_other_failure_comes_with_its_traceback() -> None:
    def fail() -> Answer:
        return told_by(1 // 0)

    with pytest.raises(RuntimeError, match=r"(?s)in fail.*ZeroDivisionError"):
        answers([partial(told_by, 1), fail])


def test_a_part_that_is_killed_is_told_and_the_others_are_ended() -> None:
    whose = mmap.mmap(-1, 8)
    reader, writer = os.pipe()

    def long() -> Answer:
        whose[:] = os.getpid().to_bytes(8, "little")
        os.write(writer, b"!")
        time.sleep(3600)
        return Answer()

    def killed() -> Answer:
        os.read(reader, 1)
        os.kill(os.getpid(), signal.SIGKILL)
        return Answer()

    with pytest.raises(RuntimeError, match="signal 9"):
        answers([long, killed])
    os.close(reader)
    os.close(writer)
    with pytest.raises(ProcessLookupError):
        os.kill(int.from_bytes(whose[:], "little"), 0)


def test_objects_are_no_arrays() -> None:
    with pytest.raises(RuntimeError, match="not of numbers"):
        answers([lambda: Answer(arrays={"it": np.array([object()])}), Answer])


def test_memory_of_parts_that_run_at_once_counts_together() -> None:
    held = 100_000_000
    before = peak_memory_mb()

    def fill() -> Answer:
        return Answer(int(np.ones(held, np.uint8).sum()))

    resident = forked._resident() / 1e6
    assert [one.facts for one in answers([fill, fill])] == [held, held]
    assert peak_memory_mb() >= max(before, resident + 1.9 * held / 1e6)


def test_torch_and_openmp_run_in_a_part_though_their_threads_ran_here() -> None:
    torch = pytest.importorskip("torch")
    lightgbm = pytest.importorskip("lightgbm")
    values = np.random.default_rng(0).random((2_000, 5)).astype(np.float32)

    def learned(threads: int) -> Answer:
        torch.manual_seed(0)
        weights = torch.zeros(5, 300, requires_grad=True)
        for _ in range(3):
            (torch.from_numpy(values) @ weights - 1.0).square().mean().backward()
        parameters = {"objective": "l2", "num_threads": threads, "verbosity": -1, "deterministic": True}
        grown = lightgbm.train(parameters, lightgbm.Dataset(values, values[:, 0].copy()), 3)
        assert weights.grad is not None
        told = grown.predict(values, num_threads=threads)
        return Answer(arrays={"gradient": weights.grad.numpy(), "told": np.asarray(told)})

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = learned(2)
        found = answers([partial(learned, 1), partial(learned, 1)])
    finally:
        torch.set_num_threads(before)
    for one in found:
        for name, array in here.arrays.items():
            np.testing.assert_allclose(one.arrays[name], array, rtol=1e-5)


def test_shares_cover_everything_once() -> None:
    assert shares(0, 4) == []
    assert shares(3, 8) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    cut = shares(1001, 4)
    assert [place for part in cut for place in range(part.start, part.stop)] == list(range(1001))
    assert max(part.stop - part.start for part in cut) - min(part.stop - part.start for part in cut) <= 1


def test_there_is_at_least_one_core() -> None:
    assert cores() >= 1

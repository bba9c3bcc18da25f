from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from with_torch import torch

from models.towers.item_softmax import full_softmax, sampled_softmax, sets_softmax


def example(rows: int = 1300, items: int = 37) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    vectors = torch.randn((rows, 8), generator=generator).requires_grad_()
    table = torch.randn((items, 8), generator=generator).requires_grad_()
    return vectors, table, torch.randint(0, items, (rows,), generator=generator)


def test_the_fused_softmax_has_the_value_and_gradients_of_cross_entropy() -> None:
    vectors, items, targets = example()  # more rows than are scored at once
    ours = full_softmax(vectors, items, targets)
    theirs = torch.nn.functional.cross_entropy(vectors @ items.T, targets)
    found = torch.autograd.grad(3.0 * ours, (vectors, items))
    wanted = torch.autograd.grad(3.0 * theirs, (vectors, items))

    torch.testing.assert_close(ours, theirs)
    for mine, its in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-4)


def test_rows_far_from_the_origin_overflow_nothing() -> None:
    vectors, items, targets = example(rows=50)
    ours = full_softmax(100.0 * vectors, items, targets)
    theirs = torch.nn.functional.cross_entropy(100.0 * vectors @ items.T, targets)
    found = torch.autograd.grad(ours, (vectors, items))
    wanted = torch.autograd.grad(theirs, (vectors, items))
    torch.testing.assert_close(ours, theirs)
    for mine, its in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-4)


def test_the_softmax_of_sets_is_that_of_their_pairs() -> None:
    vectors, items, _ = example()  # more rows than are scored at once
    sets = sp.random(1300, 37, density=0.2, random_state=3, format="csr", dtype=np.float32)
    sets.data[:] = 1.0
    rows, wanted = (torch.from_numpy(part.astype(np.int64)) for part in sets.nonzero())
    ours = sets_softmax(vectors, items, sets)
    theirs = full_softmax(vectors[rows], items, wanted)
    torch.testing.assert_close(ours, theirs)
    found = torch.autograd.grad(2.0 * ours, (vectors, items))
    for mine, its in zip(found, torch.autograd.grad(2.0 * theirs, (vectors, items)), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-6, rtol=1e-4)


def test_a_sample_of_everything_is_the_full_softmax() -> None:
    vectors, items, targets = example(rows=50)
    everything = torch.arange(37)
    sampled = sampled_softmax(vectors, items, targets, everything, torch.zeros(37))
    torch.testing.assert_close(sampled, full_softmax(vectors, items, targets))


def test_the_correction_makes_a_lopsided_sample_estimate_the_whole() -> None:
    vectors, items, targets = example(rows=50)
    shares = torch.arange(1.0, 38.0)
    shares /= shares.sum()
    drawn = torch.multinomial(shares, 20_000, replacement=True, generator=torch.Generator().manual_seed(1))
    whole = full_softmax(vectors, items, targets)

    corrected = sampled_softmax(vectors, items, targets, drawn, torch.log(shares[drawn] * 20_000))
    uniform = torch.full((20_000,), 20_000 / 37).log()
    uncorrected = sampled_softmax(vectors, items, targets, drawn, uniform)

    assert abs(float((corrected - whole).detach())) < 0.02
    assert abs(float((uncorrected - whole).detach())) > 0.05

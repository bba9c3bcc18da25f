from __future__ import annotations

from typing import get_args

import numpy as np
import onnxruntime
import pytest
from with_torch import torch

from models.sequence.encoder import START, Block, Encoder
from models.sequence.export import tower_of
from service.bundle.onnx_file import check_onnx

LENGTH = 12
BLOCKS = get_args(Block)


def encoder(block: Block, *, blocks: int = 2) -> Encoder:
    """Weights of a size that lets every part show."""
    torch.manual_seed(5)
    made = Encoder(30, dim=16, blocks=blocks, heads=2, length=LENGTH, dropout=0.5, block=block)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made.eval()


def encoded(made: Encoder, *histories: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = made(torch.tensor(histories))
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_a_place_sees_nothing_of_what_comes_later_nor_of_padding(block: Block) -> None:
    made = encoder(block)
    one, other = encoded(made, [4, 9, 2, 7, 7], [4, 9, 2, 0, 0])
    torch.testing.assert_close(one[:3], other[:3])
    assert not torch.allclose(one[3], other[3])


@pytest.mark.parametrize("block", BLOCKS)
def test_the_start_is_seen_by_itself_alone(block: Block) -> None:
    made = encoder(block)
    (begun,), (plain,) = encoded(made, [START, 4, 9, 2]), encoded(made, [4, 9, 2])
    torch.testing.assert_close(begun[1:], plain)


@pytest.mark.parametrize("block", BLOCKS)
def test_order_tells(block: Block) -> None:
    made = encoder(block)
    one, other = encoded(made, [4, 9, 2], [9, 4, 2])
    assert not torch.allclose(one[2], other[2], atol=1e-3)


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("history", [[0], [7], [3, 30], list(range(1, LENGTH + 1))])
def test_onnx_gives_the_encoders_vector_of_the_last_place(
    block: Block, blocks: int, history: list[int]
) -> None:
    made = encoder(block, blocks=blocks)
    raw = tower_of(made)
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])

    (vector,) = session.run(["vector"], {"history": np.array([history], np.int64)})

    assert check_onnx(raw) == {"history"}
    assert raw == tower_of(made)
    np.testing.assert_allclose(vector, encoded(made, history)[:, -1].numpy(), atol=1e-5)

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from with_torch import torch

from models.towers.export import exported
from models.towers.loop import seeded

LENGTH, FEATURES, DIM = 20, 3, 4


class Both(torch.nn.Module):
    """The mean of a history's items and a projection of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.items = torch.nn.Embedding(30, DIM, padding_idx=0)
        self.project = torch.nn.Linear(FEATURES, DIM)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, history: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        mean: torch.Tensor = self.dropout(self.items(history)).mean(dim=1)
        found: torch.Tensor = mean + self.project(features)
        return found


class HistoryAlone(Both):
    def forward(self, history: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # it takes less
        return super().forward(history, torch.zeros(1, FEATURES))


class FeaturesAlone(Both):
    def forward(self, features: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # it takes less
        found: torch.Tensor = self.project(features)
        return found


@pytest.mark.parametrize("kind", [HistoryAlone, FeaturesAlone])
def test_the_file_answers_as_the_network_does(kind: type[Both]) -> None:
    with seeded(0):
        network = kind()
    history, features = kind is not FeaturesAlone, kind is not HistoryAlone
    file = exported(
        network, history_length=LENGTH if history else None, n_features=FEATURES if features else None
    )
    session = onnxruntime.InferenceSession(file)
    assert [one.name for one in session.get_inputs()] == ["history"] * history + ["features"] * features
    generator = np.random.default_rng(0)
    for length in (1, 2, 7, LENGTH):
        given: dict[str, npt.NDArray[Any]] = {}
        if history:
            given["history"] = generator.integers(0, 30, (1, length))
        if features:
            given["features"] = generator.random((1, FEATURES), dtype=np.float32)
        (vector,) = session.run(["vector"], given)
        expected = network(*(torch.from_numpy(value) for value in given.values())).detach().numpy()
        assert vector.shape == (1, DIM)
        np.testing.assert_allclose(vector, expected, atol=1e-6)


def test_equal_networks_give_equal_files_that_answer_alike_and_name_no_path() -> None:
    files = []
    for _ in range(2):
        with seeded(1):
            network = Both()
        files.append(exported(network, history_length=LENGTH, n_features=FEATURES))
    assert files[0] == files[1]
    assert b".py" not in files[0]
    history, features = torch.tensor([[3, 5, 7]]), torch.rand(1, FEATURES)
    (vector,) = onnxruntime.InferenceSession(files[0]).run(
        None, {"history": history.numpy(), "features": features.numpy()}
    )
    np.testing.assert_allclose(vector, network(history, features).detach().numpy(), atol=1e-6)

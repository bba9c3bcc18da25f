from __future__ import annotations

import numpy as np
import onnxruntime
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


class FeaturesAlone(Both):
    def forward(self, features: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # it takes less
        found: torch.Tensor = self.project(features)
        return found


def test_a_tower_may_read_features_alone() -> None:
    with seeded(0):
        network = FeaturesAlone()
    session = onnxruntime.InferenceSession(exported(network, history_length=None, n_features=FEATURES))
    assert [one.name for one in session.get_inputs()] == ["features"]
    features = np.random.default_rng(0).random((1, FEATURES), dtype=np.float32)
    (vector,) = session.run(["vector"], {"features": features})
    np.testing.assert_allclose(vector, network(torch.from_numpy(features)).detach().numpy(), atol=1e-6)


def test_equal_networks_give_equal_files_that_answer_alike_and_name_no_path() -> None:
    files = []
    for _ in range(2):
        with seeded(1):
            network = Both()
        files.append(exported(network, history_length=LENGTH, n_features=FEATURES))
    assert files[0] == files[1]
    assert b".py" not in files[0]
    session = onnxruntime.InferenceSession(files[0])
    assert [one.name for one in session.get_inputs()] == ["history", "features"]
    generator = np.random.default_rng(0)
    for length in (1, 2, 7, LENGTH):
        history = generator.integers(0, 30, (1, length))
        features = generator.random((1, FEATURES), dtype=np.float32)
        (vector,) = session.run(["vector"], {"history": history, "features": features})
        expected = network(torch.from_numpy(history), torch.from_numpy(features)).detach().numpy()
        assert vector.shape == (1, DIM)
        np.testing.assert_allclose(vector, expected, atol=1e-6)

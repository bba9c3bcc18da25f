"""From a user tower in torch to the ONNX file that the service runs."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import nn


def exported(network: nn.Module, *, history_length: int | None, n_features: int | None) -> bytes:
    """Export a tower whose `forward` takes `history` and `features`, or one of them where the other's size is None.

    Inputs `history` int64 (1, n), 1 <= n <= history_length, and `features` float32 (1, n_features); output `vector`
    float32 (1, dim). Equal networks give equal bytes: nothing of this machine's paths is left in them.
    """
    inputs: dict[str, torch.Tensor] = {}
    dynamic: dict[str, dict[int, Any] | None] = {}
    if history_length is not None:
        inputs["history"] = torch.arange(1, min(history_length, 3) + 1)[None]
        dynamic["history"] = (
            {1: torch.export.Dim("n", min=1, max=history_length)} if history_length > 1 else None
        )
    if n_features is not None:
        inputs["features"] = torch.zeros(1, n_features)
        dynamic["features"] = None
    network.eval()
    # Both are torch's own talk: a deprecated call inside its exporter, and what it would do with torchvision.
    talk = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = talk.level
    talk.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=["vector"],
                dynamic_shapes=dynamic,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        talk.setLevel(level)
    assert program is not None  # with dynamo=True there always is one
    model = program.model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input):
        part.ClearField("metadata_props")
    for value in (*model.graph.output, *model.graph.initializer):
        value.ClearField("metadata_props")
    return bytes(model.SerializeToString(deterministic=True))

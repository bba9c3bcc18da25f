"""The last days of a data set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.data.dataset import Dataset

MS_PER_DAY = 86_400_000


def in_window(dataset: Dataset, days: int | None) -> npt.NDArray[np.bool_]:
    """Tell the events of the last days, bool (n,): date > midnight (UTC) of the last event's day - `days`.

    With dates alone `days` counts the last day itself. Everything, where `days` is None or times aren't
    timestamps.
    """
    if days is None or dataset.times is None or dataset.time_kind != "timestamp" or not len(dataset):
        return np.ones(len(dataset), bool)
    midnight = int(dataset.times.max()) // MS_PER_DAY * MS_PER_DAY
    recent: npt.NDArray[np.bool_] = dataset.times > midnight - days * MS_PER_DAY
    return recent

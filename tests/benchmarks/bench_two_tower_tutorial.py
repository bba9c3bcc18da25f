"""How often the tutorial's two towers tell the film of a rating: 80,000 to learn from, 20,000 to be asked about.

.venv/bin/python tests/benchmarks/bench_two_tower_tutorial.py path/to/movielens-100k
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from models.data.read import read_dataset
from models.dssm.tutorial import Config, Tutorial

K = (1, 5, 10, 50, 100)


def main(data: Path, seed: int = 42) -> None:
    dataset = read_dataset(data, reader="auto", columns={}, progress=False)
    order = np.random.default_rng(seed).permutation(len(dataset))
    held = len(dataset) // 5
    train, valid = dataset.select(np.sort(order[held:])), dataset.select(np.sort(order[:held]))
    model = Tutorial(dataset, Config(), seed=seed)
    course = model.fit(train)
    print(
        json.dumps(
            {
                "events": [len(train), len(valid)],
                "seconds": round(course.seconds, 1),
                **{f"train top-{k}": round(model.accuracy(train, k), 4) for k in K},
                **{f"valid top-{k}": round(model.accuracy(valid, k), 4) for k in K},
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

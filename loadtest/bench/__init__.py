"""How fast `/reco` is beside what else could stand in its place, measured in one run."""

"""One track at a time: how the botify profile's recommenders choose what is played next."""

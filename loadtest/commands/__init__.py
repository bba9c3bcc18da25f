"""Commands of `reco` that drive a service from outside."""

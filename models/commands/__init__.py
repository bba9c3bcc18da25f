"""What `reco` can do offline, one module a command."""

"""What `reco` can do online, one module a command."""

"""`python -m sim.run`: the simulator by the course's command line and its configuration file."""

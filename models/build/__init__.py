"""From a data set to a published bundle."""

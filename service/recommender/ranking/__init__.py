"""Two stages: candidates of several retrievers, put in order by trees."""

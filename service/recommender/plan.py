"""From the model that was asked for to the plan of how to answer."""

from __future__ import annotations

from service.domain import Plan
from service.recommender.live import LiveBundle


def plan_for(model_name: str, live: LiveBundle) -> Plan:
    """Plan an answer by a model, `default` resolved to its real name. Raises ModelNotFound."""
    model = live.resolve(model_name)
    return Plan(model.name, n_candidates=int(model.data.entry.parameters.get("n_candidates", 0)))

"""Made-up sources with recorded ground truth: a plant, smart homes and a shop. Nothing that runs in production imports this package."""

from include.simulator.faults import FaultRates
from include.simulator.files import Files, Posts
from include.simulator.history import HistorySummary, write_history
from include.simulator.live import IntervalSummary, write_interval
from include.simulator.truth import Expected
from include.simulator.world import DEFAULT_MACHINES, DEFAULT_SEED

__all__ = [
    "DEFAULT_MACHINES",
    "DEFAULT_SEED",
    "Expected",
    "FaultRates",
    "Files",
    "HistorySummary",
    "IntervalSummary",
    "Posts",
    "write_history",
    "write_interval",
]

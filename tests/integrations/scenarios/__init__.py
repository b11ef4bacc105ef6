"""What must hold with every framework, in the order of the table."""

# ruff: noqa: I001 - in the order of the table
from . import counting, waiting, failing, storing, keys, supergroups, handling, stopping
from .scenario import SCENARIOS, Scenario

__all__ = [
    "SCENARIOS",
    "Scenario",
    "counting",
    "failing",
    "handling",
    "keys",
    "stopping",
    "storing",
    "supergroups",
    "waiting",
]

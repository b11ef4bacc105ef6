"""The session that all contenders keep: an order in a shop, with as many items as are wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

EMPTY: Final = 55  # bytes of JSON: an order without items
ITEM: Final = 47  # bytes: one item and a comma


@dataclass
class Item:
    """One line of an order."""

    name: str = "Apples, red"
    amount: int = 2
    price: float = 12.5


@dataclass
class Order:
    """What a bot remembers of a chat."""

    count: int = 0
    step: str = "choosing"
    language: str = "en"
    cart: list[Item] = field(default_factory=list)


def items_for(size: int) -> int:
    """Say how many items make an order of about ``size`` bytes of JSON."""
    return round((size - EMPTY) / ITEM)


def new_order(items: int) -> Order:
    """Make the order of a new session."""
    return Order(cart=[Item() for _ in range(items)])


def new_dict(items: int) -> dict[str, Any]:
    """Make the same, for those that keep a dict."""
    item = {"name": "Apples, red", "amount": 2, "price": 12.5}
    cart = [dict(item) for _ in range(items)]
    return {"count": 0, "step": "choosing", "language": "en", "cart": cart}

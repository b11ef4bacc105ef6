"""One driver a framework; ``base.py`` explains how to write one."""

import pkgutil
from importlib import import_module
from typing import Any

from .base import Driver

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def _drivers(of: Any) -> list[type[Driver]]:
    """Find the drivers that name a framework, which those that only share something don't."""
    found = [of] if hasattr(of, "framework") else []
    return found + [driver for below in of.__subclasses__() for driver in _drivers(below)]


DRIVERS = {
    driver.framework: driver
    for driver in sorted(_drivers(Driver), key=lambda d: d.framework.casefold())
}

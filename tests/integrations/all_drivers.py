"""All drivers that there are, by their framework.

Apart from the package of drivers, for programs that need one framework and not all.
"""

import pkgutil
from importlib import import_module
from typing import Any

from integrations import drivers
from integrations.drivers.base import Driver

for _module in pkgutil.iter_modules(drivers.__path__, f"{drivers.__name__}."):
    import_module(_module.name)


def _drivers(of: Any) -> list[type[Driver]]:
    """Find the drivers that name a framework, which those that only share something don't.

    Tests of the documentation have one of their own, which isn't in the package.
    """
    is_one = hasattr(of, "framework") and of.__module__.startswith(f"{drivers.__name__}.")
    found = [of] if is_one else []
    return found + [driver for below in of.__subclasses__() for driver in _drivers(below)]


DRIVERS = {
    driver.framework: driver
    for driver in sorted(_drivers(Driver), key=lambda d: d.framework.casefold())
}

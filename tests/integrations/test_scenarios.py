"""Every framework's integration holds what the scenarios tell; see ``drivers/base.py``."""

import pytest
from integrations.all_drivers import DRIVERS
from integrations.scenario_table import CELL, PAGE, page
from integrations.scenarios import SCENARIOS

CELLS = [
    (framework, name)
    for framework, driver in DRIVERS.items()
    for name in SCENARIOS
    if name not in driver.missing
]


@pytest.mark.parametrize(
    ("framework", "name"), CELLS, ids=[f"{framework}-{name}" for framework, name in CELLS]
)
async def test_a_scenario_holds(framework, name, tmp_path, record_property):
    record_property(CELL, (framework, name))
    bot = DRIVERS[framework](tmp_path)
    await bot.open()
    try:
        bot.make()
        await SCENARIOS[name].play(bot)
    finally:
        await bot.close()


@pytest.mark.parametrize("framework", DRIVERS)
def test_a_driver_says_of_known_scenarios_only_that_they_are_missing_and_why(framework):
    missing = DRIVERS[framework].missing
    assert set(missing) <= set(SCENARIOS)
    assert all(missing.values())


def test_the_page_of_scenarios_shows_every_cell_that_there_is():
    assert PAGE.read_text("utf-8") == page(CELLS), "out of date: run `make scenarios`"

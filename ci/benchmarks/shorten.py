"""Leaves of the shop's suites one, with the first N tests of a file that writes: `shorten.py FOLDER N`."""

import sys
from pathlib import Path

folder, tests = Path(sys.argv[1]), int(sys.argv[2])
config = (folder / "andon.toml").read_text()
head, suites, policy = config.partition("[[suite]]")[0], config.split("[[suite]]")[1], "[policy]\nmax_failures = 1\n"
suite = suites.split("# Tests that only read")[0].replace('args = ["tests/integration"]', 'args = ["tests/integration/test_stock.py"]')
(folder / "andon.toml").write_text(f"{head}[[suite]]{suite}\n{policy}")
(folder / "conftest.py").write_text(
    "def pytest_collection_modifyitems(config, items):\n"
    f"    if config.option.collectonly or len(items) > {tests}:\n"
    f"        del items[{tests}:]\n"
)

"""How the template's tests are spread over the cores: `make test` runs them with pytest-xdist."""

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# In these files all tests look at one story, which takes long: it shall happen once.
STORIES = {
    "tests/test_contract.py",
    "tests/test_image.py",
    "tests/test_compose.py",
    "tests/test_full_disk.py",
}


class OneStoryOneWorker(LoadScopeScheduling):  # type: ignore[misc] # no types
    """Sends tests where there is time, but those of one story together.

    The own way of pytest-xdist for that, `xdist_group`, does nothing with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if file not in STORIES:
            return nodeid
        parameter = re.search(r"\[3\.\d+\]$", test)  # a story of its own for each Python
        return file + (parameter[0] if parameter else "")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Tell pytest-xdist."""
    return OneStoryOneWorker(config, log)


@pytest.hookimpl(trylast=True)  # after they have been shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with those that take minutes, or one core would wait for them in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/test_workflow.py"))

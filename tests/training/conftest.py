"""Every test of this folder uses one thread."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread):
    """As the root's fixture says."""

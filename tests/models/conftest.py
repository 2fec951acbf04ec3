"""Every test of this folder uses one thread; the golden data were made so."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread):
    """As the root's fixture says."""

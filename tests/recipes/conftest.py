import pytest
from recipes.small import write_volumes


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    """A folder with raw.npy and labels.npy."""
    folder = tmp_path_factory.mktemp("volumes")
    write_volumes(folder)
    return folder

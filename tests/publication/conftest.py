"""Two honest boards, of one seed and of two, and their runs."""

import pytest
from boards import published, runs


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """Return `one` and `two`: (store, publication)."""
    folder = tmp_path_factory.mktemp("runs")
    stores = {name: runs(folder / name, seeds=seeds) for name, seeds in (("one", (0,)), ("two", (0, 1)))}
    return {name: (store, published(store, name)) for name, store in stores.items()}

"""What all tests share. This folder is on the path, so that any test can import the small study."""

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every machine: what a random one would find once belongs into an @example of its test.
settings.register_profile("reproducible", derandomize=True)
settings.load_profile("reproducible")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference material that is laid out beside the checkout on some machines."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the reference material is not laid out in ../shared")
    return folder


@pytest.fixture(scope="session")
def prepared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder named ``mini``, to be read and not to be written; made once for all tests."""
    from prepared_run import prepare_run

    return prepare_run(tmp_path_factory.mktemp("prepared") / "runs")


@pytest.fixture(scope="session")
def workspace(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with the files that the docs and the help of the commands name; made once."""
    from workspace import make_workspace

    return make_workspace(tmp_path_factory.mktemp("workspace"), prepared_run)

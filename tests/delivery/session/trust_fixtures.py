"""A pytest plugin for the tests of TLS: whom they trust."""

import pytest
from certificates import AUTHORITY


@pytest.fixture(scope="session")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the file with the authority that is trusted here."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(path)
    return str(path)

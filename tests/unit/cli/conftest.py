"""Certificates made once by the program itself, and a second authority nobody trusts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealwire.cli import main


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    assert main(["--json", "cert", "--dir", str(directory)]) == 0
    return directory


@pytest.fixture(scope="session")
def other_pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("other")
    assert main(["--json", "cert", "--dir", str(directory)]) == 0
    return directory

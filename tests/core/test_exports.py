"""What a package exports is what it says that it does; what is not exported may change freely."""

from importlib import import_module
from types import ModuleType

import pytest


@pytest.mark.parametrize("name", ["core", "specs", "policy", "engine", "measure"])
def test_public_names(name):
    package = import_module(f"rackscale.{name}")
    public = {
        key
        for key, value in vars(package).items()
        if not key.startswith("_") and not isinstance(value, ModuleType)
    }
    assert set(package.__all__) == public
    assert len(package.__all__) == len(public)

"""A ResNet-18 of one block a stage: the same layers, and half of the compilation."""

import pytest

from tests.methods.build import shallow_resnet


@pytest.fixture(autouse=True, scope="module")
def _shallow():
    with shallow_resnet():
        yield

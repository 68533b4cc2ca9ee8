"""Image files to test with."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImages = Callable[..., Path]


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """``write_images("a/1.png", "b/2.png")`` writes images; the i-th is (6 + i % 3, 8), all of value i.

    It gives the folder to which these paths are relative.
    """

    def write(*names: str) -> Path:
        root = tmp_path / "images"
        for i, name in enumerate(names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6 + i % 3, 8, 3), i, np.uint8)).save(path)
        return root

    return write

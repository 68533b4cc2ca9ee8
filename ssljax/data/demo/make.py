"""Makes the embedded demo images: a class-balanced part of CIFAR-10, one JPEG contact sheet for each class and split.

    python -m ssljax.data.demo.make cifar10.npz

The archive holds ``x`` (50000, 32, 32, 3) and ``xt`` (10000, 32, 32, 3), uint8, with integer labels ``y`` and ``yt``.
The first 800 train and the first 200 test images of each class are laid out in rows of 40 and written beside this file.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from ssljax.data.arrays import DEMO_CLASSES, DEMO_COLUMNS, DEMO_FOLDER

TRAIN_PER_CLASS = 800
TEST_PER_CLASS = 200


def contact_sheet(images: np.ndarray) -> np.ndarray:
    """Tiles (n, h, w, 3) images, row by row, into one (n / 40 * h, 40 * w, 3) image; n must divide by 40."""
    n, height, width, channels = images.shape
    rows = images.reshape(n // DEMO_COLUMNS, DEMO_COLUMNS, height, width, channels)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, DEMO_COLUMNS * width, channels)


def write_split(folder: Path, images: np.ndarray, labels: np.ndarray, per_class: int) -> None:
    """Writes ``CLASS.jpg`` with the first ``per_class`` images of each class."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, class_name in enumerate(DEMO_CLASSES):
        sheet = contact_sheet(images[labels == label][:per_class])
        # Without chroma subsampling JPEG works on blocks of 8 x 8, so none straddles two tiles of 32 x 32.
        Image.fromarray(sheet).save(folder / f"{class_name}.jpg", quality=90, subsampling=0, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="an .npz with the arrays x, y, xt and yt of CIFAR-10")
    with np.load(parser.parse_args().archive, allow_pickle=False) as cifar:
        write_split(DEMO_FOLDER / "train", cifar["x"], cifar["y"], TRAIN_PER_CLASS)
        write_split(DEMO_FOLDER / "test", cifar["xt"], cifar["yt"], TEST_PER_CLASS)


if __name__ == "__main__":
    main()

"""Made train.csv.gz and test.csv.gz of this folder from the 32,561 rows of Adult's training file.

    python ssljax/data/demo/tables/make.py adult.csv

The file has a first line with the names of the columns; without it: archive.ics.uci.edu/dataset/2/adult, adult.data.
"""

import csv
import gzip
import io
import random
import sys
from pathlib import Path

PARTS = {"train": slice(0, 8000), "test": slice(8000, 10_000)}


def main(path: Path) -> None:
    header, *rows = csv.reader(path.read_text().splitlines())
    rows = [[cell.strip() for cell in row] for row in rows]
    random.Random(0).shuffle(rows)
    for name, part in PARTS.items():
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([header, *rows[part]])
        # The same bytes whenever it is made: no name and no time.
        packed = gzip.compress(text.getvalue().encode(), mtime=0)
        (Path(__file__).parent / f"{name}.csv.gz").write_bytes(packed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Made tinyshakespeare.txt.gz and speeches/ of this folder from Tiny Shakespeare.

    python ssljax/data/demo/text/make.py tinyshakespeare.txt

The file: github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt.
"""

import csv
import gzip
import io
import re
import sys
from pathlib import Path

PLAYS = {
    "Coriolanus": "First Citizen:\nBefore we proceed",
    "Richard III": "GLOUCESTER:\nNow is the winter",
    "Richard II": "KING RICHARD II:\nOld John of Gaunt",
    "Romeo and Juliet": "SAMPSON:\nGregory, o' my word",
    "Henry VI, part 3": "WARWICK:\nI wonder how the king escaped",
    "The Winter's Tale": "ARCHIDAMUS:\nIf you shall chance, Camillo",
    "Measure for Measure": "DUKE VINCENTIO:\nEscalus.",
    "The Taming of the Shrew": "SLY:\nI'll pheeze you",
    "The Tempest": "Master:\nBoatswain!",
}
"""How each play begins, in the order of the file."""
SHORTEST, LONGEST = 60, 240
"""Characters of a speech: of longer ones the beginning."""


def main(path: Path) -> None:
    text = path.read_text()
    write("tinyshakespeare.txt.gz", text)
    starts = [text.index(opening) for opening in PLAYS.values()]
    rows = []
    for play, start, end in zip(PLAYS, starts, [*starts[1:], len(text)], strict=True):
        for speech in re.split(r"\n\n+", text[start:end].strip()):
            said = " ".join(speech.partition(":\n")[2].split())
            if len(said) >= SHORTEST:
                rows.append((said if len(said) <= LONGEST else said[:LONGEST].rpartition(" ")[0], play))
    for name, part in (("test", rows[::3]), ("train", [row for i, row in enumerate(rows) if i % 3])):
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows([("text", "play"), *part])
        write(f"speeches/{name}.csv.gz", written.getvalue())


def write(name: str, text: str) -> None:
    # The same bytes whenever it is made: no name and no time.
    (Path(__file__).parent / name).write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The text: public-domain prose from Debian packages, cut into training and held-out parts.

    apt-get download r-cran-janeaustenr r-cran-tokenizers bible-kjv bible-kjv-text
    python models/train/corpus.py DEB_FOLDER OUT_FOLDER

writes train.txt and other.txt (a form feed between documents), heldout.txt, and calibration.txt, pieces of
train.txt to quantise with. A document is a chapter.
Lines that the source wraps are joined: a paragraph is a line, and a blank line parts paragraphs. Held out
are the last chapters of each novel, at least `HELD_OUT_SHARE` of it, which training never sees.
"""

import argparse
import gzip
import re
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

HELD_OUT_SHARE = 0.04
CALIBRATION_STEP, CALIBRATION_CHARACTERS = 6, 4300  # of every so manieth chapter, so much from its beginning
DOCUMENT_BREAK = "\f"
CHAPTER = re.compile(r"^(chapter|volume|preface|the end|finis)\b.*$", re.IGNORECASE)
# A string in R's serialisation, ASCII or UTF-8; its length and bytes follow.
STRING = re.compile(rb"\x00[\x00\x04][\x00\x80]\x09")


def unpack(folder: Path, package: str, into: Path) -> Path:
    """The root of a Debian package's files."""
    (archive,) = folder.glob(f"{package}_*.deb")
    subprocess.run(["dpkg", "-x", str(archive), str(into)], check=True)
    return into


def novels(root: Path) -> list[list[str]]:
    """The six novels, each as its lines, out of R's lazy-load database."""
    data = next(root.rglob("janeaustenr/data/Rdata.rdb")).read_bytes()
    index = gzip.decompress(next(root.rglob("janeaustenr/data/Rdata.rdx")).read_bytes())
    lines = []
    for match in re.finditer(rb"\x00\x00\x00\x0d\x00\x00\x00\x02(.{8})", index, re.DOTALL):
        start, size = struct.unpack(">II", match.group(1))
        lines.append(strings(zlib.decompress(data[start + 4 : start + size])))
    return lines


def strings(serialised: bytes) -> list[str]:
    """The character vector that R serialised."""
    start = re.search(STRING, serialised)
    assert start is not None, "a character vector has strings"
    found, at = [], start.start()
    while re.match(STRING, serialised[at : at + 4]):
        (size,) = struct.unpack(">I", serialised[at + 4 : at + 8])
        found.append(serialised[at + 8 : at + 8 + size].decode())
        at += 8 + size
    return found


def chapters(lines: list[str]) -> list[str]:
    """A novel's chapters, each a text of paragraphs. Headings stay; the title page goes."""
    documents: list[list[str]] = [[]]
    for paragraph in paragraphs(lines):
        if CHAPTER.match(paragraph) and len(documents[-1]) > 1:
            documents.append([])
        documents[-1].append(paragraph)
    return ["\n\n".join(document) + "\n" for document in documents if len(document) > 1]


def paragraphs(lines: list[str]) -> list[str]:
    """Runs of lines without a blank one between them, joined."""
    text = "\n".join(line.strip() for line in lines)
    return [" ".join(part.split()) for part in re.split(r"\n{2,}", text) if part.strip()]


def moby_dick(root: Path) -> list[str]:
    """Melville's novel, which r-cran-tokenizers ships as one string."""
    data = next(root.rglob("tokenizers/data/Rdata.rdb")).read_bytes()
    (text,) = strings(zlib.decompress(data[4:]))
    body = text[text.index("CHAPTER 1") : text.rindex("End of")]
    return chapters(body.splitlines())


def bible(root: Path) -> list[str]:
    """The King James Version, a document for each chapter."""
    program = next(root.rglob("bin/bible"))
    data = next(root.rglob("bible.data"))
    text = subprocess.run(
        [str(program), "-p", str(data.parent), "-f", "gen1:1-rev22:21"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    verses: dict[str, list[str]] = {}
    for line in text.splitlines():
        match = re.match(r"(\w+ ?\d+):\d+ (.*)", line)
        if match:
            verses.setdefault(match.group(1), []).append(match.group(2))
    return [" ".join(chapter) + "\n" for chapter in verses.values()]


def split(documents: list[str]) -> tuple[list[str], list[str]]:
    """Training and held-out documents: the last ones are held out."""
    total, held = sum(map(len, documents)), 0
    cut = len(documents)
    while held < HELD_OUT_SHARE * total:
        cut -= 1
        held += len(documents[cut])
    return documents[:cut], documents[cut:]


def beginning(document: str, num_characters: int) -> str:
    """The first paragraphs of a document that have so many characters, but one at least."""
    first, *others = document.split("\n\n")
    kept = first + "\n\n"
    for paragraph in others:
        if len(kept) + len(paragraph) > num_characters:
            break
        kept += paragraph + "\n\n"
    return kept.strip()


def main() -> None:
    """Write the files and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    train: list[str] = []
    held_out: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for package in ("r-cran-janeaustenr", "r-cran-tokenizers", "bible-kjv", "bible-kjv-text"):
            unpack(options.packages, package, root)
        for lines in novels(root):
            kept, held = split(chapters(lines))
            train += kept
            held_out += held
        other = moby_dick(root) + bible(root)
    (options.out / "train.txt").write_text(DOCUMENT_BREAK.join(train))
    (options.out / "other.txt").write_text(DOCUMENT_BREAK.join(other))
    (options.out / "heldout.txt").write_text("\n".join(held_out))
    pieces = [beginning(document, CALIBRATION_CHARACTERS) for document in train[::CALIBRATION_STEP]]
    (options.out / "calibration.txt").write_text("\n\n".join(pieces) + "\n")
    for name, texts in (("train", train), ("other", other), ("heldout", held_out)):
        print(f"{name}: {len(texts)} documents, {sum(map(len, texts)):,} characters")


if __name__ == "__main__":
    main()

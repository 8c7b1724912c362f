"""Builds a vocabulary from your own prompts: ``python -m shiftlens.words build FILE --out words.tsv``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from shiftlens.errors import ShiftLensError
from shiftlens.words.build import FORMS, build_vocabulary
from shiftlens.words.vocabulary import write_words


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Command-line arguments; ``None`` takes those of the process.

    Returns:
        The exit code: 0, or 1 after an error, which is printed to standard error.
    """
    parser = argparse.ArgumentParser(prog="python -m shiftlens.words", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="count the words of prompts", description=FORMS)
    build.add_argument("file", help="prompts: ShareGPT-style JSON, or JSON Lines")
    build.add_argument("--out", required=True, help="file of words and frequencies, for words.vocabulary=FILE")
    build.add_argument("--min-count", type=int, default=5, help="leave out rarer words (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        words = build_vocabulary(given.file, given.min_count)
        write_words(words, given.out)
    except (ShiftLensError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(words)} words in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

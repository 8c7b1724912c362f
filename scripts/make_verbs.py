"""Writes ``assets/words/general_verbs.txt``, the frequent English verbs that are not instruction verbs.

Usage: ``python scripts/make_verbs.py``. The same package versions give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from shiftlens.words.verbs import ASSETS, AUXILIARIES, frequent_verbs, instruction_verbs

HEADER = """\
# Frequent English verbs without auxiliaries (be, do, have) and instruction verbs, most frequent first.
# Made by scripts/make_verbs.py: a verb ranks by the rarest of its base, past and -ing form (frequencies by
# wordfreq 3.1, CC BY-SA 4.0; forms by lemminflect 0.2).
"""


def main() -> None:
    """Parse the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="number of verbs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ASSETS / "general_verbs.txt", help="default: %(default)s")
    given = parser.parse_args()
    verbs = frequent_verbs(given.count, [*AUXILIARIES, *instruction_verbs()])
    given.out.write_text(HEADER + "".join(f"{verb}\n" for verb in verbs), encoding="utf-8")


if __name__ == "__main__":
    main()

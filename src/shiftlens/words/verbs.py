"""Reads the instruction verbs and the general verbs they are compared with, and finds them in a vocabulary."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from shiftlens.errors import Problem
from shiftlens.words.files import raise_problems, read_text
from shiftlens.words.morphology import is_verb, verb_forms

ASSETS = Path(__file__).parents[1] / "assets" / "words"
AUXILIARIES = ("be", "do", "have")
"""Verbs left out of the general verbs. Modals need no entry: without an *-ing* form they do not rank."""


def instruction_verbs(path: str | Path | None = None) -> tuple[str, ...]:
    """Return the verbs that ask for a piece of work on text, data or code.

    Args:
        path: File with your own list; ``None`` reads the included list, which was chosen by hand (the file says
            how).

    Raises:
        ConfigError: If the file has faults; see :func:`read_verbs`.

    Source:
        The idea follows Wang et al., "Self-Instruct" (arXiv 2212.10560), figure of the most common root verbs of
        instructions; Wu et al., arXiv 2310.00492, compare such verbs with general ones.

    Example:
        >>> instruction_verbs()[:3]
        ('write', 'rewrite', 'compose')
    """
    return read_verbs(path or ASSETS / "instruction_verbs.txt")


def general_verbs(path: str | Path | None = None) -> tuple[str, ...]:
    """Return frequent English verbs without auxiliaries and instruction verbs, most frequent first.

    Args:
        path: File with your own list; ``None`` reads the included list of 200, which ``scripts/make_verbs.py``
            made with :func:`frequent_verbs`.

    Raises:
        ConfigError: If the file has faults; see :func:`read_verbs`.

    Example:
        >>> general_verbs()[:3]
        ('get', 'make', 'go')
    """
    return read_verbs(path or ASSETS / "general_verbs.txt")


def read_verbs(path: str | Path) -> tuple[str, ...]:
    r"""Read verbs from a text file with one base form per line; ``#`` starts a comment.

    Args:
        path: File to read, UTF-8.

    Returns:
        The verbs in lower case, in the order of the file.

    Raises:
        ConfigError: If the file is missing or empty, a line is not the base form of a verb, or a verb is repeated;
            the message lists the faults.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.txt"
        >>> _ = path.write_text("# mine\nwrite\nsummarize\n")
        >>> read_verbs(path)
        ('write', 'summarize')
    """
    path = Path(path).expanduser()
    verbs: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        verb = line.partition("#")[0].strip().lower()
        if not verb:
            continue
        if not is_verb(verb):
            problems.append(Problem(number, "", f"{verb!r} is not the base form of an English verb"))
        if verb in verbs:
            problems.append(Problem(number, "", f"{verb!r} is listed twice"))
        verbs.append(verb)
    if not verbs:
        problems.append(Problem(1, "", "there are no verbs"))
    raise_problems(path, problems, "Each line is one verb in its base form, such as write; # starts a comment.")
    return tuple(verbs)


def frequent_verbs(count: int, leave_out: Sequence[str]) -> tuple[str, ...]:
    """Return the most frequent English verbs.

    The frequency of a verb is that of the rarest among its base, past and *-ing* form. The base form alone would
    rank nouns such as *time* and *people* high, which the dictionary also has as verbs. Each single form can be
    another word (*building*, *thought*), but rarely all three are.

    Args:
        count: Number of verbs to return.
        leave_out: Verbs to leave out.

    Returns:
        The verbs, most frequent first; verbs of equal frequency are in alphabetical order.

    Source:
        Frequencies from ``wordfreq``, forms from ``lemminflect``.

    Example:
        >>> frequent_verbs(4, ["have"])
        ('be', 'do', 'get', 'make')
    """
    from lemminflect import getAllInflections  # type: ignore[import-untyped]
    from wordfreq import get_frequency_dict

    share = get_frequency_dict("en")

    def frequency(verb: str) -> float:
        forms = getAllInflections(verb, "VERB")
        spellings = ((verb,), forms.get("VBD", ()), forms.get("VBG", ()))
        return min(max((share.get(form, 0.0) for form in same), default=0.0) for same in spellings)

    frequency_by_verb: dict[str, float] = {}
    rising_frequencies: list[float] = []
    for word in sorted(share.keys() - set(leave_out), key=lambda word: (-share[word], word)):
        if word.isalpha() and is_verb(word):
            if len(frequency_by_verb) >= count and share[word] < rising_frequencies[-count]:
                break  # a verb ranks no higher than its base form, and the rest are rarer
            frequency_by_verb[word] = frequency(word)
            insort(rising_frequencies, frequency_by_verb[word])
    return tuple(sorted(frequency_by_verb, key=lambda verb: (-frequency_by_verb[verb], verb))[:count])


def verb_indices(
    verbs: Sequence[str], words: Sequence[str], inflections: bool = False
) -> dict[str, Int[np.ndarray, " _"]]:
    """Find, for each verb, the words of a vocabulary that stand for it.

    Args:
        verbs: Base forms of the verbs.
        words: Vocabulary; compared in lower case.
        inflections: Whether inflected forms (*writes*, *wrote*, *written*, *writing*) stand for their verb as
            well. The default is no, as in the paper, whose vocabulary has lemmas. With a vocabulary of inflected
            forms, this option finds more pairs per verb, but also counts other words: *thought* for *think*,
            *left* for *leave*, *building* for *build*.

    Returns:
        Verb -> indices into ``words``, ascending; empty for a verb that is not in the vocabulary.

    Example:
        >>> indices = verb_indices(["write", "sing"], ["Write", "a", "writing"], inflections=True)
        >>> indices["write"].tolist(), indices["sing"].tolist()
        ([0, 2], [])
    """
    indices_by_word: dict[str, list[int]] = {}
    for index, word in enumerate(words):
        indices_by_word.setdefault(word.lower(), []).append(index)
    indices_by_verb: dict[str, Int[np.ndarray, " _"]] = {}
    for verb in verbs:
        forms = verb_forms(verb) if inflections else (verb.lower(),)
        indices = sorted(index for form in forms for index in indices_by_word.get(form, ()))
        indices_by_verb[verb] = np.array(indices, dtype=np.int64)
    return indices_by_verb

"""Instruction verbs, and the general verbs they are compared with."""

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
"""Stop words among the verbs. Modals have no past form and no form in *-ing*, so they do not rank."""


def instruction_verbs(path: str | Path | None = None) -> tuple[str, ...]:
    """Verbs that ask for a piece of work on text, data or code.

    Args:
        path: your own list; ``None``: the shipped one, chosen by hand (the file says how).

    Raises:
        ConfigError: the file has faults, see :func:`read_verbs`.

    Source:
        The idea is that of Wang et al., "Self-Instruct" (arXiv 2212.10560), figure of the most common root verbs
        of instructions; Wu et al., arXiv 2310.00492, compare such verbs with general ones.

    Example:
        >>> instruction_verbs()[:3]
        ('write', 'rewrite', 'compose')
    """
    return read_verbs(path or ASSETS / "instruction_verbs.txt")


def general_verbs(path: str | Path | None = None) -> tuple[str, ...]:
    """Frequent English verbs without auxiliaries and instruction verbs, most frequent first.

    Args:
        path: your own list; ``None``: the shipped 200, made by ``scripts/make_verbs.py`` with
            :func:`frequent_verbs`.

    Raises:
        ConfigError: the file has faults, see :func:`read_verbs`.

    Example:
        >>> general_verbs()[:3]
        ('get', 'make', 'go')
    """
    return read_verbs(path or ASSETS / "general_verbs.txt")


def read_verbs(path: str | Path) -> tuple[str, ...]:
    r"""Verbs from a text file: one base form per line, ``#`` starts a comment.

    Args:
        path: the file, UTF-8.

    Returns:
        The verbs in lower case, in the order of the file.

    Raises:
        ConfigError: the file is not there or empty, or a line is no base form of a verb or comes twice; all
            faults are listed.

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
            problems.append(Problem(number, "", f"{verb!r} is listed before"))
        verbs.append(verb)
    if not verbs:
        problems.append(Problem(1, "", "there are no verbs"))
    raise_problems(path, problems, "Each line is one verb in its base form, such as write; # starts a comment.")
    return tuple(verbs)


def frequent_verbs(count: int, leave_out: Sequence[str]) -> tuple[str, ...]:
    """The most frequent English verbs.

    A word counts as often as the rarest of its base, past and *-ing* form. The base form alone would count
    nouns such as *time* and *people*, which the dictionary has as verbs too; and any one form can be another
    word (*building*, *thought*), while seldom all are.

    Args:
        count: number of verbs.
        leave_out: verbs not wanted.

    Returns:
        The verbs, most frequent first; equally frequent ones in alphabetical order.

    Source:
        Frequencies of ``wordfreq``, forms of ``lemminflect``.

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

    found: dict[str, float] = {}
    ranks: list[float] = []
    for word in sorted(share.keys() - set(leave_out), key=lambda word: (-share[word], word)):
        if word.isalpha() and is_verb(word):
            if len(found) >= count and share[word] < ranks[-count]:
                break  # no verb is more frequent than its base form, and these only get rarer
            found[word] = frequency(word)
            insort(ranks, found[word])
    return tuple(sorted(found, key=lambda verb: (-found[verb], verb))[:count])


def verb_indices(
    verbs: Sequence[str], words: Sequence[str], inflections: bool = False
) -> dict[str, Int[np.ndarray, " _"]]:
    """Which words of a vocabulary stand for each verb.

    Args:
        verbs: base forms.
        words: the vocabulary; compared in lower case.
        inflections: whether *writes*, *wrote*, *written* and *writing* stand for *write* as well. The paper's
            vocabulary has lemmas, so there a pair counts for a verb if the verb itself is in it; that is the
            default. With a vocabulary of forms this option gives a verb more pairs, among them some of other
            words: *thought* counts for *think*, *left* for *leave*, *building* for *build*.

    Returns:
        Verb -> indices into ``words``, ascending; empty for a verb that is not in the vocabulary.

    Example:
        >>> found = verb_indices(["write", "sing"], ["Write", "a", "writing"], inflections=True)
        >>> found["write"].tolist(), found["sing"].tolist()
        ([0, 2], [])
    """
    places: dict[str, list[int]] = {}
    for index, word in enumerate(words):
        places.setdefault(word.lower(), []).append(index)
    found: dict[str, Int[np.ndarray, " _"]] = {}
    for verb in verbs:
        forms = verb_forms(verb) if inflections else (verb.lower(),)
        found[verb] = np.array(sorted(index for form in forms for index in places.get(form, ())), dtype=np.int64)
    return found

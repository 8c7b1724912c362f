"""Dictionary forms, inflections and parts of speech of English words.

Only the dictionaries of the package ``lemminflect`` (from the NIH SPECIALIST lexicon) are looked up. Its guesser
for unknown words is never asked: it is kept in a pickled file, and it would name a lemma for any string.
"""

from __future__ import annotations

from functools import cache


def parts_of_speech(word: str) -> frozenset[str]:
    """What a word can be: ``NOUN``, ``VERB``, ``ADJ``, ``ADV``, ``AUX`` (Universal Dependencies tags).

    Args:
        word: in any case.

    Returns:
        All readings, none preferred. Empty for words that are not in the dictionary, and for most
        prepositions, pronouns and conjunctions, which do not inflect.

    Example:
        >>> sorted(parts_of_speech("writing")), sorted(parts_of_speech("the"))
        (['NOUN', 'VERB'], [])
    """
    return frozenset(_lemmas(word.lower()))


def verb_forms(verb: str) -> tuple[str, ...]:
    """A verb and its inflected forms, sorted.

    Args:
        verb: the base form, in any case.

    Returns:
        The forms in lower case, the base form among them; only the base form for a verb that is not in
        the dictionary.

    Example:
        >>> verb_forms("write")
        ('write', 'writes', 'writing', 'written', 'wrote')
    """
    from lemminflect import getAllInflections  # type: ignore[import-untyped]

    verb = verb.lower()
    forms = getAllInflections(verb, "VERB")
    return tuple(sorted({verb, *(form for spellings in forms.values() for form in spellings)}))


def is_verb(word: str) -> bool:
    """Whether a word is the base form of a verb.

    Example:
        >>> is_verb("write"), is_verb("writes"), is_verb("giraffe")
        (True, False, False)
    """
    return word in _lemmas(word).get("VERB", ())


@cache
def lemma(word: str) -> str:
    """The dictionary form of a word that stands alone, so without its part of speech.

    A word that can be a form of a verb is one: *writing* is *write*, though it could be a noun. Prompts are
    full of verbs, and of the simple rules this one agrees best with the vocabulary of the paper. Of several
    lemmas that remain, the most frequent in English is taken.

    Args:
        word: in lower case.

    Returns:
        The lemma; the word itself where the dictionary does not have it.

    Example:
        >>> [lemma(word) for word in ("writing", "children", "was", "data", "llama")]
        ['write', 'child', 'be', 'data', 'llama']
    """
    from wordfreq import get_frequency_dict

    share = get_frequency_dict("en")
    found = _lemmas(word)
    candidates = found.get("VERB") or {form for forms in found.values() for form in forms}
    return min(candidates, key=lambda form: (-share.get(form, 0.0), form), default=word)


def _lemmas(word: str) -> dict[str, tuple[str, ...]]:
    from lemminflect import getAllLemmas

    return getAllLemmas(word)

"""Looks up dictionary forms, inflections and parts of speech of English words.

The source is the dictionary of the package ``lemminflect`` (from the NIH SPECIALIST lexicon). The package can also
guess the forms of unknown words; this module does not use that, because the guesser is stored in a pickled file
and returns a lemma for any string.
"""

from __future__ import annotations

from functools import cache


def parts_of_speech(word: str) -> frozenset[str]:
    """Return all parts of speech that a word can have, as Universal Dependencies tags.

    Args:
        word: Word, in upper or lower case.

    Returns:
        A subset of ``NOUN``, ``VERB``, ``ADJ``, ``ADV`` and ``AUX``. It is empty for words that the dictionary
        lacks, among them most prepositions, pronouns and conjunctions, which do not inflect.

    Example:
        >>> sorted(parts_of_speech("writing")), sorted(parts_of_speech("the"))
        (['NOUN', 'VERB'], [])
    """
    return frozenset(_lemmas(word.lower()))


def verb_forms(verb: str) -> tuple[str, ...]:
    """Return a verb and its inflected forms, sorted.

    Args:
        verb: Base form of the verb, in upper or lower case.

    Returns:
        The forms in lower case, the base form included; only the base form if the dictionary lacks the verb.

    Example:
        >>> verb_forms("write")
        ('write', 'writes', 'writing', 'written', 'wrote')
    """
    from lemminflect import getAllInflections  # type: ignore[import-untyped]

    verb = verb.lower()
    forms = getAllInflections(verb, "VERB")
    return tuple(sorted({verb, *(form for spellings in forms.values() for form in spellings)}))


def is_verb(word: str) -> bool:
    """Return whether a lower-case word is the base form of a verb.

    Example:
        >>> is_verb("write"), is_verb("writes"), is_verb("giraffe")
        (True, False, False)
    """
    return word in _lemmas(word).get("VERB", ())


@cache
def lemma(word: str) -> str:
    """Return the dictionary form of a word without context, so without a known part of speech.

    A word that can be a form of a verb is read as a verb: the lemma of *writing* is *write*, although *writing*
    can be a noun. Prompts contain many verbs, and of the simple rules this one agrees best with the vocabulary of
    the paper. If several lemmas remain, the most frequent in English is returned.

    Args:
        word: Word in lower case.

    Returns:
        The lemma, or the word itself if the dictionary lacks it.

    Example:
        >>> [lemma(word) for word in ("writing", "children", "was", "data", "llama")]
        ['write', 'child', 'be', 'data', 'llama']
    """
    from wordfreq import get_frequency_dict

    share = get_frequency_dict("en")
    lemmas_by_tag = _lemmas(word)
    candidates = lemmas_by_tag.get("VERB") or {form for forms in lemmas_by_tag.values() for form in forms}
    return min(candidates, key=lambda form: (-share.get(form, 0.0), form), default=word)


def _lemmas(word: str) -> dict[str, tuple[str, ...]]:
    """Part-of-speech tag -> lemmas of a lower-case word."""
    from lemminflect import getAllLemmas

    return getAllLemmas(word)

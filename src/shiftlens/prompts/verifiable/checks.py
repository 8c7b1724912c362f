"""Validates and runs checks, given as data: ``{"name": ..., **arguments}``.

A check decides from a response alone whether the response follows the instruction. The functions that do so are in
:mod:`shiftlens.prompts.verifiable.checkers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shiftlens.errors import ConfigError
from shiftlens.prompts.verifiable import checkers
from shiftlens.support.setting_rules import Number


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(_is_text, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_values(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(v, str) for kv in value.items() for v in kv)


def _is_checks(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0


_KINDS_OF_VALUE: Mapping[str, Callable[[Any], bool]] = {
    "a text": _is_text,
    "a list of texts": _is_texts,
    "a whole number from 0": lambda value: not Number(0).expected(value),
    "true or false": lambda value: isinstance(value, bool),
    "an object of texts": _is_values,
    "a list of checks": _is_checks,
}
_TEXT, _TEXTS, _COUNT, _FLAG, _VALUES, _CHECKS = _KINDS_OF_VALUE


@dataclass(frozen=True)
class _Checker:
    """Function of a check, and the kinds of values (keys of ``_KINDS_OF_VALUE``) of its arguments by name.

    Args:
        function: Function of a stripped, non-empty response and the arguments.
        needs: Required arguments.
        takes: Optional arguments.
    """

    function: Callable[..., bool]
    needs: Mapping[str, str] = field(default_factory=dict)
    takes: Mapping[str, str] = field(default_factory=dict)


def _all(response: str, *, checks: list[Mapping[str, Any]]) -> bool:
    return all(_run(check, response) for check in checks)


_CHECKERS: Mapping[str, _Checker] = {
    "all": _Checker(_all, {"checks": _CHECKS}),
    "bullets": _Checker(checkers.bullets, {"count": _COUNT}, {"items": _TEXTS}),
    "choice": _Checker(checkers.choice, {"letter": _TEXT, "others": _TEXTS}),
    "contains": _Checker(checkers.contains, {"text": _TEXT}),
    "enclosed": _Checker(checkers.enclosed, {"left": _TEXT, "right": _TEXT}, {"text": _TEXT}),
    "ends_with": _Checker(checkers.ends_with, {"text": _TEXT}),
    "equals": _Checker(checkers.equals, {"text": _TEXT}, {"ignore_case": _FLAG}),
    "json_object": _Checker(checkers.json_object, {"keys": _TEXTS}, {"values": _VALUES}),
    "lowercase": _Checker(checkers.lowercase),
    "mentions": _Checker(checkers.mentions, {"texts": _TEXTS}),
    "number": _Checker(checkers.number, {"value": _COUNT}),
    "numbered": _Checker(checkers.numbered, {"count": _COUNT}, {"items": _TEXTS}),
    "order": _Checker(checkers.order, {"items": _TEXTS}),
    "separated": _Checker(checkers.separated, {"by": _TEXT, "items": _TEXTS}),
    "starts_with": _Checker(checkers.starts_with, {"text": _TEXT}),
    "uppercase": _Checker(checkers.uppercase),
    "without": _Checker(checkers.without, {"text": _TEXT}),
    "words": _Checker(checkers.words, {"least": _COUNT, "most": _COUNT}),
}

CHECKS = tuple(_CHECKERS)
"""Names of the known checks; ``all`` combines several checks that must all pass."""


def check_problems(check: Any) -> str | None:
    """Validate a check.

    Args:
        check: Value that should be ``{"name": ..., **arguments}``.

    Returns:
        All faults of the check in one message, or ``None`` if :func:`followed` can use the check.

    Example:
        >>> check_problems({"name": "words", "least": 1, "mots": 5})
        "check words: needs 'most' (a whole number from 0); does not know 'mots' (it takes least, most)"
        >>> check_problems({"name": "uppercase"}) is None
        True
    """
    if not isinstance(check, Mapping):
        return f'a check must be an object such as {{"name": "uppercase"}}, got {check!r}'
    name = check.get("name")
    if not isinstance(name, str) or name not in _CHECKERS:
        return f"unknown check {name!r}; known checks: {', '.join(CHECKS)}"
    checker = _CHECKERS[name]
    known = {**checker.needs, **checker.takes}
    faults = [f"needs {key!r} ({kind})" for key, kind in checker.needs.items() if key not in check]
    for key, value in check.items():
        if key == "name":
            continue
        if key not in known:
            faults.append(f"does not know {key!r} (it takes {', '.join(known) or 'no arguments'})")
        elif not _KINDS_OF_VALUE[known[key]](value):
            faults.append(f"{key!r} must be {known[key]}, got {value!r}")
        elif known[key] == _CHECKS:
            faults.extend(fault for each in value if (fault := check_problems(each)))
    return f"check {name}: {'; '.join(faults)}" if faults else None


def followed(check: Any, response: str) -> bool:
    """Decide from a response alone whether it follows the instruction.

    Args:
        check: Check as ``{"name": ..., **arguments}``, see :data:`CHECKS`.
        response: Response; white space around it is ignored.

    Returns:
        Whether the check passes. An empty response passes no check.

    Raises:
        ConfigError: The check is invalid.

    Example:
        >>> followed({"name": "starts_with", "text": "In short,"}, "In short, it rains.")
        True
        >>> followed({"name": "without", "text": "e"}, "")
        False
    """
    if problem := check_problems(check):
        raise ConfigError(problem)
    return _run(check, response)


def _run(check: Any, response: str) -> bool:
    response = response.strip()
    arguments = {key: value for key, value in check.items() if key != "name"}
    return response != "" and _CHECKERS[check["name"]].function(response, **arguments)

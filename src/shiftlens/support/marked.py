"""Marks the fields of a dataclass that change the numbers it computes, for keys of what is kept on disk."""

from __future__ import annotations

import dataclasses
from typing import Any

_MARK = "changes_numbers"


def numeric(default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field on which results depend.

    Args:
        default: Default value of the field.
    """
    return dataclasses.field(default=default, metadata={_MARK: True})


def costs_only(default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that changes time or memory, and no result.

    Args:
        default: Default value of the field.
    """
    return dataclasses.field(default=default, metadata={_MARK: False})


def numbers_of(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass on which its results depend, by name.

    Args:
        settings: Instance of a dataclass all of whose fields are made by :func:`numeric` or :func:`costs_only`; or
            an object without attributes, which has none.

    Raises:
        TypeError: A field is not marked, or an object with attributes is no dataclass: nobody has decided whether
            results depend on them.

    Example:
        >>> @dataclasses.dataclass
        ... class Settings:
        ...     target: str = numeric("p")
        ...     chunk: int = costs_only(4)
        >>> numbers_of(Settings())
        {'target': 'p'}
    """
    if not dataclasses.is_dataclass(settings):
        if vars(settings):
            raise TypeError(
                f"{type(settings).__name__}: {', '.join(vars(settings))}: make it a dataclass with numeric() and "
                "costs_only() of shiftlens.support.marked, or define identity()"
            )
        return {}
    unmarked = [field.name for field in dataclasses.fields(settings) if _MARK not in field.metadata]
    if unmarked:
        raise TypeError(
            f"{type(settings).__name__}: {', '.join(unmarked)}: say by numeric() or costs_only() of "
            "shiftlens.support.marked whether results depend on it"
        )
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.metadata[_MARK]
    }

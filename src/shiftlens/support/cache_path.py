"""Names the folder in which fetched models, hashes and results for weights are cached."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache folder that the Python interface uses by default.

    Returns:
        The folder in the environment variable ``SHIFTLENS_CACHE``; without the variable, ``~/.cache/shiftlens`` in
        the user's home. ``paths.cache`` of the command line has the same default.

    Example:
        >>> from unittest.mock import patch
        >>> with patch.dict(os.environ, SHIFTLENS_CACHE="somewhere"):
        ...     cache_dir().name
        'somewhere'
    """
    return Path(os.environ.get("SHIFTLENS_CACHE", "~/.cache/shiftlens")).expanduser()

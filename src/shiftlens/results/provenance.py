"""Records what produced a result, so that the result can be reproduced."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any


def provenance(**parts: Any) -> dict[str, Any]:
    """Collect the provenance of a result: date, git commit, machine, versions, and the given parts.

    Args:
        **parts: Properties of the run by name, such as models, data and settings; mappings become dictionaries.

    Returns:
        All entries by name.

    Example:
        >>> sorted(provenance(data={"n": 3}))[:3]
        ['created', 'data', 'git']
    """
    versions = {name: metadata.version(name) for name in ("shiftlens", "torch", "transformers")}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **versions,
        **{key: dict(value) if isinstance(value, Mapping) else value for key, value in parts.items()},
    }


def git_commit() -> str | None:
    """Return the commit of the ShiftLens checkout, with ``+`` if files changed; ``None`` without a checkout."""
    here = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=True).stdout

    try:
        if not Path(git("rev-parse", "--show-toplevel").strip(), "src", "shiftlens").samefile(here):
            return None
        changed = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None

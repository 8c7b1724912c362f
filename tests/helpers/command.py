"""The commands as a user types them, in processes of their own, or in this one, which is several seconds faster."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from unittest.mock import patch

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from shiftlens import cli

ROOT = Path(__file__).parents[2]
RECORDS = [
    {
        "id": "one",
        "text": "Fix the grammar: me and him goes",
        "instruction": [[0, 16]],
        "context": [[17, 32]],
    },
    {"id": "two", "text": "Write the words in order, please: b a c", "instruction": [[0, 32]]},
    {"id": "three", "text": "Translate this to French", "instruction": [[0, 24]], "rating": 4},
]


def run(*words: str, cwd: Path, script: str = "analyze.py", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / script), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "COLUMNS": "160", "SHIFTLENS_CHECK_SHAPES": "0", **env},
    )


def run_here(*words: str, cwd: Path, script: str = "analyze.py", **env: str) -> subprocess.CompletedProcess[str]:
    """What `run` does, in this process: exit status, both streams; Hydra and logging are left as they were."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    command = {"analyze.py": cli.analyze, "train.py": cli.train}[script]
    root, single = logging.getLogger(), HydraConfig.instance()
    handlers, level, config = list(root.handlers), root.level, single.cfg
    GlobalHydra.instance().clear()
    with (
        contextlib.chdir(cwd),
        patch.dict(os.environ, {"COLUMNS": "160", **env}),
        patch.object(sys, "argv", [str(ROOT / script), *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            command()
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
            if isinstance(leaving.code, str):
                print(leaving.code, file=sys.stderr)
        except BaseException:
            status = 1
            traceback.print_exc()
        finally:
            for handler in root.handlers:
                if handler not in handlers:
                    handler.close()
            root.handlers[:], single.cfg = handlers, config
            root.setLevel(level)
            GlobalHydra.instance().clear()
    return subprocess.CompletedProcess([script, *words], status, out.getvalue(), err.getvalue())

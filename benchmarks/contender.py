"""The benchmark's side of a worker process, and the environment of the peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from serve import Task

HERE = Path(__file__).parent
ENGINES = ("auto", "forward", "generic", "reverse", "mixed")
OURS = (*ENGINES, "naive")
PEERS = ("inseq", "captum")


@dataclass(frozen=True)
class Found:
    """One answer of a contender.

    Args:
        values: [N, columns] as in :class:`serve.Answer`.
        log_probability: [columns], if told.
        target: what the values are derivatives of.
        mode: way it took.
        seconds: time of the attribution alone.
        peak: most resident bytes of the process after its first task.
        loaded: resident bytes at the end of the first task, which also reads the weights.
    """

    values: Float[np.ndarray, "prompt columns"]
    log_probability: Float[np.ndarray, " columns"] | None
    target: str
    mode: str
    seconds: float
    peak: int
    loaded: int


@dataclass(frozen=True)
class Setup:
    """What all contenders share.

    Args:
        model: folder of the model.
        cache: folder of cached calibrations.
        threads: threads of each.
        peers: Python of the peers' environment.
    """

    model: Path
    cache: Path
    threads: int
    peers: Path | None = None


class Worker:
    """A contender in a process of its own: loaded once, asked often. A context manager.

    Loading starts at once and is waited for by :meth:`ready`, so that several workers load side by side.

    Args:
        name: one of :data:`OURS`, :data:`PEERS`, or ``exact``.
        setup: what all contenders share.
    """

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        python, script = (setup.peers, "peers.py") if name in PEERS else (sys.executable, "ours.py")
        command = [str(python), str(HERE / script), name, "--threads", str(setup.threads)]
        command += ["--model", str(setup.model), "--cache", str(setup.cache)]
        threads = {key: str(setup.threads) for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        quiet = {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed on exit
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **threads, **quiet, "PYTHONWARNINGS": "ignore"},
        )
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # ends the worker
        self._process.wait()
        self._folder.cleanup()
        self._errors.close()

    def ready(self) -> str:
        """Wait until the contender is loaded, once; its name and version."""
        title: str = self._hear()["title"]
        return title

    def run(self, task: Task) -> Found:
        """Explain one text."""
        assert self._process.stdin is not None
        out = Path(self._folder.name) / "out.npz"
        self._process.stdin.write(json.dumps({**asdict(task), "out": str(out)}) + "\n")
        self._process.stdin.flush()
        heard = self._hear()
        with np.load(out, allow_pickle=False) as arrays:
            return Found(arrays["values"], arrays.get("log_probability"), **heard)

    def _hear(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise SystemExit(f"{self.name} ended:\n{self._errors.read()[-3000:]}")
        heard: dict = json.loads(line)
        if "error" in heard:
            raise SystemExit(f"{self.name}: {heard['error']}")
        return heard


def peers_python(folder: Path) -> Path:
    """The Python of an environment with the peers; made on first use, brought up to date otherwise."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["-c", str(HERE.parent / "constraints.txt"), "-r", str(HERE / "requirements-peers.txt")]
    subprocess.run(install, check=True)
    return python

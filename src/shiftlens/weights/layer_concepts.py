"""Feed-forward layers as concepts (paper, section on feed-forward networks): components named by words.

The rows of a down projection are the patterns that the layer can write. Their principal components are
its concepts, and the words whose output embeddings point along a component name it.
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
"""Components that are compared with all words at once."""


@dataclass(frozen=True)
class LayerConcepts:
    """The concepts of one layer, largest variance first. All arrays are on the CPU.

    Args:
        components: [k, width] unit vectors; the sign of each is arbitrary.
        explained_variance_ratio: [k] share of the variance of the layer's patterns.
        words: [k, top] indices of the words that name each concept, largest ``|cosine|`` first.
        cosine: [k, top] their cosines with the component, with sign.
    """

    components: Float[np.ndarray, "k width"]
    explained_variance_ratio: Float[np.ndarray, " k"]
    words: Int64[np.ndarray, "k top"]
    cosine: Float[np.ndarray, "k top"]


def layer_concepts(
    down: Float[Tensor, "d_ff width"], word_embeddings: Float[Tensor, "words width"], k: int = 300, top: int = 50
) -> LayerConcepts:
    """Principal components of a layer's patterns, each with the words closest to it.

    Args:
        down: [d_ff, width] rows of the down projection, the vectors that the layer writes.
        word_embeddings: [words, width] output embeddings of words, on the same device.
        k: number of concepts (300 in the paper); fewer where the matrix is smaller.
        top: words per concept (50 in the paper); fewer where there are fewer words.

    Returns:
        Concepts in the order of their variance.

    Raises:
        ValueError: the matrix has fewer than two rows, or entries that are not finite.

    Example:
        >>> down = torch.tensor([[0.0, 3.0], [0.0, -3.0], [1.0, 0.0], [-1.0, 0.0]])
        >>> found = layer_concepts(down, torch.tensor([[5.0, 0.0], [0.0, -2.0], [3.0, 4.0]]), k=1, top=2)
        >>> found.words.tolist(), np.round(found.cosine.astype(float), 2).tolist()
        ([[1, 2]], [[-1.0, 0.8]])
    """
    found = principal_components(down, min(k, *down.shape))
    words, cosine = closest_words(found.components, word_embeddings, min(top, len(word_embeddings)))
    return LayerConcepts(found.components.cpu().numpy(), found.ratio.cpu().numpy(), words, cosine)


def closest_words(
    components: Float[Tensor, "k width"], word_embeddings: Float[Tensor, "words width"], top: int
) -> tuple[Int64[np.ndarray, "k top"], Float[np.ndarray, "k top"]]:
    """The words of largest ``|cosine|`` with each component.

    Args:
        components: [k, width] unit vectors.
        word_embeddings: [words, width] of any length; a zero vector has cosine 0 with everything.
        top: words per component.

    Returns:
        Indices [k, top], largest first and of equals the lower index, and their cosines [k, top].

    Raises:
        ValueError: ``top`` is not from 1 to the number of words, or embeddings are not finite.

    Example:
        >>> closest_words(torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 0.0]]), top=1)[1].tolist()
        [[1.0], [0.0]]
    """
    embeddings = word_embeddings.detach().to(components.dtype)
    length = linalg.vector_norm(embeddings, dim=1)
    length = torch.where(length > 0, length, 1.0)
    words, cosines = [], []
    for chunk in components.split(CHUNK):
        cosine = (chunk @ embeddings.T).div_(length)
        place = top_by_magnitude(cosine, top)
        words.append(place.cpu())
        cosines.append(cosine.gather(1, place).cpu())
    return torch.cat(words).numpy(), torch.cat(cosines).numpy()

"""Opens one model of a pair: finds its folders, decides the template, and loads the weights."""

from __future__ import annotations

from collections.abc import Mapping

from shiftlens.models.loading import LM, load_lm, load_tokenizer, shared_template
from shiftlens.models.pair import Layers, Pair, find_pair


def open_role(pair: Pair, name: str, layers: Mapping[str, Layers] | None = None) -> LM:
    """Load one model of a pair, with its tokenizer and the template that the pair shares.

    A template that the configuration leaves open (``auto``, ``chat``) is the tuned model's chat template for
    both models, so that base and tuned read the same words around a prompt.

    Args:
        pair: Pair that the model belongs to.
        name: Role to load, ``base`` or ``tuned``.
        layers: Folders of the role, by role, from :func:`~shiftlens.models.pair.find_pair`; without the tuned
            model among them an open template comes from the role's own tokenizer. ``None`` finds both models.

    Returns:
        The model, frozen.

    Raises:
        SourceError: A model cannot be found or read, or it has no chat template although one is required.
    """
    folders = find_pair(pair) if layers is None else layers
    template_role = "tuned" if "tuned" in folders else name
    template = shared_template(pair.role(template_role).template, load_tokenizer(folders[template_role]))
    return load_lm(pair.role(name), folders[name], template, pair.cache)

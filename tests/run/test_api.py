"""The Python interface on the real model."""

from __future__ import annotations

import numpy as np
import pytest

import shiftlens as sl
from shiftlens.errors import ConfigError


@pytest.mark.slow
def test_attribution_of_its_own_response(real_base):
    att = sl.attribute(real_base, "What is the capital of France?", max_new_tokens=12)
    assert "Paris" in att.response
    N, M = len(att.prompt_tokens), len(att.response_tokens)
    assert att.importance.shape == (N, M)
    assert att.importance.dtype == np.float32
    assert att.probability.shape == (M,)
    assert "".join(att.prompt_tokens) == "What is the capital of France?"
    ids = att.input_ids
    words = real_base.tokenizer
    assert words.decode(ids[att.prompt_index]) == "What is the capital of France?"
    assert words.decode(ids).startswith("<|im_start|>system")
    assert words.decode(ids[len(ids) - M :]) == att.response
    assert (ids == words.bos_token_id).sum() == 3  # one per turn, none doubled
    S = sl.score(att.importance, L=10, b=7)
    np.testing.assert_array_equal(S, sl.score(att.values, L=10, b=7))
    assert sl.density(S, p=4).max() == 1


@pytest.mark.slow
def test_a_given_response_is_explained_as_the_same_one_generated(real_base):
    att = sl.attribute(real_base, "Count from one to five.", max_new_tokens=8)
    given = sl.attribute(real_base, "Count from one to five.", response=att.response)
    np.testing.assert_array_equal(given.input_ids, att.input_ids)
    np.testing.assert_allclose(given.importance, att.importance, rtol=1e-4, atol=1e-7)


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(ConfigError, match="the role is base or tuned"):
        sl.load("bundled:middle")
    with pytest.raises(ConfigError, match="known settings are"):
        sl.load("bundled:base", device="cpu")

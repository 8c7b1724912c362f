"""Settings of a service with OpenAI's chat interface, and what may be wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from shiftlens.support.number_rules import Rule, number_problems

_NUMBERS = {
    "temperature": Rule(0, whole=False, optional=True),
    "seed": Rule(0, optional=True),
    "timeout": Rule(1, whole=False),
    "tries": Rule(1),
    "wait": Rule(0, whole=False),
    "parallel": Rule(1),
    "max_requests": Rule(0, optional=True),
    "max_tokens": Rule(0, optional=True),
}


@dataclass(frozen=True)
class Endpoint:
    """Whom to ask and how much; the keys of ``conf/annotator/openai.yaml``.

    Args:
        model: name of the model, as the service knows it.
        base_url: address of the service.
        key_env: environment variable that holds the key; ``None`` sends none.
        temperature: ``None`` leaves it to the service.
        seed: sent along, for services that know one; ``None`` sends none.
        timeout: seconds to wait for one answer.
        tries: requests per concept before giving up on it.
        wait: seconds before the second try, doubled for each further one.
        parallel: requests under way at once.
        max_requests: requests of one run, retries counted; ``None`` is no limit.
        max_tokens: tokens of one run, prompts and answers; ``None`` is no limit. Requests under way are finished.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    key_env: str | None = "OPENAI_API_KEY"
    temperature: float | int | None = 0
    seed: int | None = 0
    timeout: float | int = 60
    tries: int = 4
    wait: float | int = 1
    parallel: int = 4
    max_requests: int | None = 2000
    max_tokens: int | None = 1_000_000


def problems(values: Mapping[str, Any]) -> list[str]:
    """Everything wrong with settings of an :class:`Endpoint`, in words; what is not given is at its default.

    Args:
        values: settings by name.

    Example:
        >>> problems({"model": "m", "key_env": None, "tries": 0})
        ['annotator.tries=0: expected a whole number, 1 or more']
    """
    defaults = {field.name: field.default for field in fields(Endpoint)}
    values = {**defaults, "model": "", **values}
    url = urlsplit(str(values["base_url"]))
    found = []
    if not values["model"]:
        found.append("annotator.model is missing: the name of the model at the service")
    if url.scheme not in ("http", "https") or not url.hostname:
        found.append("annotator.base_url: expected an address that begins with http:// or https://")
    if url.username or url.password or url.query:
        found.append("annotator.base_url holds a password or a query; name a variable in annotator.key_env")
    if values["key_env"] and not os.environ.get(str(values["key_env"])):
        found.append(f"annotator.key_env={values['key_env']}: this variable is not set (null: no key is needed)")
    return found + number_problems(values, _NUMBERS)

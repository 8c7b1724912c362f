"""Defines and checks the settings of a service with OpenAI's chat interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from shiftlens.support.setting_rules import Number, Rule, setting_problems

RULES: Mapping[str, Rule] = {
    "temperature": Number(0, whole=False, optional=True),
    "seed": Number(0, optional=True),
    "timeout": Number(1, whole=False),
    "tries": Number(1),
    "wait": Number(0, whole=False),
    "parallel": Number(1),
    "max_requests": Number(0, optional=True),
    "max_tokens": Number(0, optional=True),
}
"""Rules of the numeric keys of ``conf/annotator/openai.yaml``."""


@dataclass(frozen=True)
class Endpoint:
    """Service, model and budget of an annotator; the keys of ``conf/annotator/openai.yaml``.

    Args:
        model: Name of the model at the service.
        base_url: Address of the service.
        key_env: Environment variable that contains the key; ``None`` sends no key.
        temperature: Sampling temperature; ``None`` leaves it to the service.
        seed: Sampling seed, for services that support one; ``None`` sends none.
        timeout: Seconds to wait for one answer.
        tries: Largest number of tries per concept, after failed requests and answers that cannot be parsed.
        wait: Seconds before the second try, doubled before each further one (60 at most).
        parallel: Number of simultaneous requests.
        max_requests: Number of requests in one run, retries included; ``None`` sets no limit.
        max_tokens: Number of tokens in one run, prompts and answers together; ``None`` sets no limit. Requests
            already sent are completed.
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
    """Return a message for every invalid setting of an :class:`Endpoint`.

    Args:
        values: Settings by name; a missing one has its default value.

    Example:
        >>> problems({"model": "m", "key_env": None, "tries": 0})
        ['annotator.tries=0: expected a whole number of at least 1']
    """
    defaults = {field.name: field.default for field in fields(Endpoint)}
    values = {**defaults, "model": "", **values}
    url = urlsplit(str(values["base_url"]))
    faults = []
    if not values["model"]:
        faults.append("annotator.model is missing: the name of the model at the service")
    if url.scheme not in ("http", "https") or not url.hostname:
        faults.append("annotator.base_url: expected an address that begins with http:// or https://")
    if url.username or url.password or url.query:
        faults.append("annotator.base_url holds a password or a query; name a variable in annotator.key_env")
    if values["key_env"] and not os.environ.get(str(values["key_env"])):
        faults.append(f"annotator.key_env={values['key_env']}: this variable is not set (null: no key is needed)")
    return faults + setting_problems(values, RULES, "annotator.")

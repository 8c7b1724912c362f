"""Annotation by any service with OpenAI's chat interface: OpenAI itself, vLLM, llama.cpp, Ollama, a gateway."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftlens.annotate.annotation import CANNOT_TELL, Annotation, AnnotationStoppedError, Concept
from shiftlens.annotate.annotator_prompt import ANSWER_SCHEMA, question, read_answer
from shiftlens.annotate.answer_cache import AnswerCache
from shiftlens.annotate.endpoint import Endpoint, problems
from shiftlens.errors import ConfigError
from shiftlens.support.setting_rules import refuse

if TYPE_CHECKING:
    from openai import OpenAI

log = logging.getLogger(__name__)
_LONGEST_WAIT = 60.0
_FORMAT = {"type": "json_schema", "json_schema": {"name": "annotation", "strict": True, "schema": ANSWER_SCHEMA}}


class _StopError(Exception):
    """No further request makes sense; says why, unless another one was the first to find out."""


class OpenAIAnnotator:
    """Asks a language model behind an OpenAI-compatible service, once per concept, and keeps every answer.

    Answers are asked for in JSON by schema; a service that refuses schemas is asked in words alone. An answer
    that cannot be read is asked for again; after the last try it counts as "cannot tell" and is not kept.

    Args:
        endpoint: whom to ask.
        cache: folder for answers; a concept answered there costs no request.

    Raises:
        ConfigError: lists every setting that is wrong, or says that the ``openai`` package is missing.
    """

    name = "openai"

    def __init__(self, endpoint: Endpoint, cache: Path) -> None:
        refuse(problems(asdict(endpoint)))
        self._endpoint = endpoint
        asked = {"model": endpoint.model, "base_url": endpoint.base_url}
        self._cache = AnswerCache(cache, {**asked, "temperature": endpoint.temperature, "seed": endpoint.seed})
        self._lock = threading.Lock()
        self._requests = self._tokens = 0
        self._structured = True
        self._client: Any = _client(endpoint)

    def annotate(self, concepts: Sequence[Concept]) -> list[Annotation]:
        """One annotation per concept, in order.

        Args:
            concepts: any number.

        Raises:
            AnnotationStoppedError: the budget is spent or the service fails; what was done is in its ``done``, and
                kept on disk.
        """
        done: dict[int, Annotation] = {}
        stopped: _StopError | None = None
        halt = threading.Event()
        with ThreadPoolExecutor(self._endpoint.parallel) as pool:
            places = {pool.submit(self._one, concept, halt): i for i, concept in enumerate(concepts)}
            try:
                for future in as_completed(places):
                    try:
                        done[places[future]] = future.result()
                    except _StopError as error:
                        stopped = error if error.args else stopped
            finally:
                halt.set()  # an interrupt too must not let the queue run on
        if stopped is not None:
            raise AnnotationStoppedError(
                f"annotation stopped after {len(done)} of {len(concepts)} concepts: {stopped}. "
                f"Answers are kept in {self._cache.folder}; the same run again goes on from there",
                done,
            )
        return [done[i] for i in range(len(concepts))]

    def _one(self, concept: Concept, halt: threading.Event) -> Annotation:
        kept = self._cache.get(concept)
        if kept is not None:
            return kept
        if halt.is_set():
            raise _StopError
        try:
            return self._answer(concept)
        except _StopError:
            halt.set()  # here, before this thread takes up the next concept
            raise

    def _answer(self, concept: Concept) -> Annotation:
        for attempt in range(self._endpoint.tries):
            text, wait, why = self._ask(question(concept), last=attempt + 1 == self._endpoint.tries)
            answer = read_answer(text) if text is not None else None
            if answer is not None:
                self._cache.put(concept, answer)
                return answer
            if why:
                log.info("annotator: %s; trying again", why)
                time.sleep(wait if wait is not None else min(self._endpoint.wait * 2**attempt, _LONGEST_WAIT))
        return replace(CANNOT_TELL, note=f"no readable answer in {self._endpoint.tries} tries")

    def _ask(self, text: str, last: bool) -> tuple[str | None, float | None, str]:
        """One request: the answer, or how long to wait (``None``: as usual) and why there is none.

        Raises:
            _StopError: it was refused for good, or this was the last try.
        """
        import openai

        self._spend_request()
        try:
            return self._request(text), None, ""
        except openai.APIStatusError as error:
            code, wait = error.status_code, _retry_after(error.response.headers.get("retry-after"))
            why = f"the service answered {code}: {self._safe(error)}"
            again = code in (408, 409, 429) or code >= 500
        except openai.APIConnectionError as error:
            wait, why, again = None, f"the service cannot be reached: {self._safe(error)}", True
        except ValueError:
            wait, why, again = None, "the reply is no chat completion; is annotator.base_url right?", True
        if last or not again:
            raise _StopError(why)
        return None, wait, why

    def _request(self, text: str) -> str:
        import openai

        settings: dict[str, Any] = {"temperature": self._endpoint.temperature, "seed": self._endpoint.seed}
        call: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": [{"role": "user", "content": text}],
            **{key: value for key, value in settings.items() if value is not None},
        }
        if self._structured:
            try:
                return self._counted(self._client.chat.completions.create(**call, response_format=_FORMAT), text)
            except (openai.BadRequestError, openai.UnprocessableEntityError):
                self._spend_request()  # perhaps it knows no schemas: the same question without one tells
        answer = self._counted(self._client.chat.completions.create(**call), text)
        self._structured = False
        return answer

    def _counted(self, completion: Any, text: str) -> str:
        try:
            answer, usage = completion.choices[0].message.content or "", completion.usage
        except (AttributeError, IndexError, TypeError) as error:
            raise ValueError("no chat completion") from error
        # A service that does not count is taken at four characters per token, as English has on average.
        used = usage.total_tokens if usage else (len(text) + len(answer)) // 4
        with self._lock:
            self._tokens += used
        return answer

    def _spend_request(self) -> None:
        most, tokens = self._endpoint.max_requests, self._endpoint.max_tokens
        with self._lock:
            if most is not None and self._requests >= most:
                raise _StopError(f"annotator.max_requests={most} is spent")
            if tokens is not None and self._tokens >= tokens:
                raise _StopError(f"annotator.max_tokens={tokens} is spent ({self._tokens} used)")
            self._requests += 1

    def _safe(self, error: Exception) -> str:
        """The error's first line without the key, which a service may repeat."""
        key = self._client.api_key
        text = str(error).replace(key, "***") if key else str(error)
        return (text.splitlines() or [type(error).__name__])[0][:300]


def _client(endpoint: Endpoint) -> OpenAI:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise ConfigError("annotator=openai needs the openai package: pip install 'shiftlens[openai]'") from error
    key = os.environ[endpoint.key_env] if endpoint.key_env else "none"
    # Retries are counted against the budget, so they are made here and not inside the client.
    return OpenAI(api_key=key, base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0)


def _retry_after(header: str | None) -> float | None:
    try:
        return min(max(float(header or ""), 0.0), _LONGEST_WAIT)
    except ValueError:
        return None

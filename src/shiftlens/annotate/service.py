"""Annotates concepts with any service that has OpenAI's chat interface (vLLM, llama.cpp, Ollama, gateways)."""

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
    """Raised when no further request can succeed, with the reason.

    The reason is empty in threads that stop because another thread has raised the error.
    """


class OpenAIAnnotator:
    """Annotator that sends one question per concept to an OpenAI-compatible service and stores every answer.

    The request includes a JSON schema; for a service that rejects schemas it is repeated without one. If an answer
    cannot be parsed, the question is sent again; after the last try the concept counts as "cannot tell", which is
    not stored.

    Args:
        endpoint: Service, model and budget.
        cache: Folder for stored answers; a concept with a stored answer needs no request.

    Raises:
        ConfigError: If settings are invalid (the message lists all of them) or the ``openai`` package is missing.
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
        """Annotate concepts, several at a time.

        Args:
            concepts: Concepts to annotate.

        Returns:
            One annotation per concept, in the same order.

        Raises:
            AnnotationStoppedError: If the budget is spent or the service fails. The error's ``done`` has the
                finished annotations, which are also stored on disk.
        """
        done: dict[int, Annotation] = {}
        stopped: _StopError | None = None
        halt = threading.Event()
        with ThreadPoolExecutor(self._endpoint.parallel) as pool:
            index_by_future = {pool.submit(self._one, concept, halt): i for i, concept in enumerate(concepts)}
            try:
                for future in as_completed(index_by_future):
                    try:
                        done[index_by_future[future]] = future.result()
                    except _StopError as error:
                        stopped = error if error.args else stopped
            finally:
                halt.set()  # so that the queue does not continue after an interrupt either
        if stopped is not None:
            raise AnnotationStoppedError(
                f"annotation stopped after {len(done)} of {len(concepts)} concepts: {stopped}. "
                f"Answers are kept in {self._cache.folder}; the same run again goes on from there",
                done,
            )
        return [done[i] for i in range(len(concepts))]

    def _one(self, concept: Concept, halt: threading.Event) -> Annotation:
        """Return the stored annotation of a concept, or request one unless the run is being stopped."""
        kept = self._cache.get(concept)
        if kept is not None:
            return kept
        if halt.is_set():
            raise _StopError
        try:
            return self._answer(concept)
        except _StopError:
            halt.set()  # set here, before this thread takes the next concept
            raise

    def _answer(self, concept: Concept) -> Annotation:
        """Request an annotation until an answer can be parsed, at most ``tries`` times."""
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
        """Send one request.

        Args:
            text: Question to send.
            last: Whether this is the last try, so that a failure ends the run.

        Returns:
            The answer, ``None`` and ``""``; or, after a failure, ``None``, the seconds to wait (``None``: the
            usual time) and the reason.

        Raises:
            _StopError: If the failure is permanent, or this was the last try.
        """
        import openai

        self._spend_request()
        try:
            return self._request(text), None, ""
        except openai.APIStatusError as error:
            code, wait = error.status_code, _retry_after(error.response.headers.get("retry-after"))
            why = f"the service answered {code}: {self._safe(error)}"
            retry = code in (408, 409, 429) or code >= 500
        except openai.APIConnectionError as error:
            wait, why, retry = None, f"the service cannot be reached: {self._safe(error)}", True
        except ValueError:
            wait, why, retry = None, "the reply is no chat completion; is annotator.base_url right?", True
        if last or not retry:
            raise _StopError(why)
        return None, wait, why

    def _request(self, text: str) -> str:
        """Return the text of the service's answer, with the JSON schema as long as the service accepts it."""
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
                self._spend_request()  # may be due to the schema: repeat without it
        answer = self._counted(self._client.chat.completions.create(**call), text)
        self._structured = False
        return answer

    def _counted(self, completion: Any, text: str) -> str:
        """Return the text of a completion, and add its tokens to the budget."""
        try:
            answer, usage = completion.choices[0].message.content or "", completion.usage
        except (AttributeError, IndexError, TypeError) as error:
            raise ValueError("no chat completion") from error
        # If the service reports no usage, assume four characters per token, the average of English.
        used = usage.total_tokens if usage else (len(text) + len(answer)) // 4
        with self._lock:
            self._tokens += used
        return answer

    def _spend_request(self) -> None:
        """Count one request; raise ``_StopError`` if the budget of requests or tokens is spent."""
        max_requests, max_tokens = self._endpoint.max_requests, self._endpoint.max_tokens
        with self._lock:
            if max_requests is not None and self._requests >= max_requests:
                raise _StopError(f"annotator.max_requests={max_requests} is spent")
            if max_tokens is not None and self._tokens >= max_tokens:
                raise _StopError(f"annotator.max_tokens={max_tokens} is spent ({self._tokens} used)")
            self._requests += 1

    def _safe(self, error: Exception) -> str:
        """Return the first line of an error without the key, which some services repeat in their messages."""
        key = self._client.api_key
        text = str(error).replace(key, "***") if key else str(error)
        return (text.splitlines() or [type(error).__name__])[0][:300]


def _client(endpoint: Endpoint) -> OpenAI:
    """Return a client for the service.

    Raises:
        ConfigError: If the ``openai`` package is missing.
    """
    try:
        from openai import OpenAI
    except ImportError as error:
        raise ConfigError("annotator=openai needs the openai package: pip install 'shiftlens[openai]'") from error
    key = os.environ[endpoint.key_env] if endpoint.key_env else "none"
    # Retries count towards the budget, so OpenAIAnnotator makes them and not the client.
    return OpenAI(api_key=key, base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0)


def _retry_after(header: str | None) -> float | None:
    """Return the seconds in a Retry-After header, limited to the longest wait; ``None`` if it is no number."""
    try:
        return min(max(float(header or ""), 0.0), _LONGEST_WAIT)
    except ValueError:
        return None

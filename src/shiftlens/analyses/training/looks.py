"""Takes the periodic measurements (looks) of a model during training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pandas as pd

from shiftlens.analyses.training.curves import (
    Point,
    checker,
    density_points,
    follow_points,
    logged,
    pair_points,
    rotation_points,
)
from shiftlens.analyses.training.findings import Training, behaviour_findings, probe_rows, probes_table
from shiftlens.analyses.training.history import Found, Judged
from shiftlens.analyses.training.probes import Answers, answer, explain, kept, make_probes, restored
from shiftlens.analyses.training.training_settings import ShiftSettings
from shiftlens.analyses.training.watches import ConceptWatch, PairWatch
from shiftlens.attribution import Engine
from shiftlens.errors import ConfigError
from shiftlens.models.identity import digest
from shiftlens.models.loading import LM
from shiftlens.prompts.readers import PromptSet
from shiftlens.prompts.verifiable import followed
from shiftlens.results.provenance import provenance
from shiftlens.results.section import Section
from shiftlens.scores.samples import Measured
from shiftlens.scores.settings import Settings
from shiftlens.weights.by_layer import select
from shiftlens.weights.depth import depth_parts
from shiftlens.words import Lexicon

T = TypeVar("T")


class Looks:
    """Takes looks at a model under training, and holds all measurements so far.

    Args:
        settings: What is measured, and how often.
        local: Values of L, b and p.
        engine: Attribution engine.
        batch_tokens: Number of prompt and response tokens generated together.
        lexicon: Words for the analysis of the weights; ``None`` if the weights are not analyzed.

    Attributes:
        found: The measurements so far.
    """

    def __init__(
        self, settings: ShiftSettings, local: Settings, engine: Engine, batch_tokens: int, lexicon: Lexicon | None
    ) -> None:
        self.settings, self.local, self.engine, self.batch_tokens = settings, local, engine, batch_tokens
        self.lexicon = lexicon
        self.found = Found()
        self._live: set[int] = set()
        self._first: list[Measured] = []
        self._last: dict[str, list[Measured]] = {}
        self._concepts: ConceptWatch | None = None
        self._pairs: PairWatch | None = None
        self._pending: dict[str, Any] = {}
        self._training: Training | None = None

    def prepare(self, lm: LM, prompts: PromptSet, max_new_tokens: int, on_long: str) -> None:
        """Encode the prompts and prepare the analyses of the weights.

        Args:
            lm: Model from which the training starts.
            prompts: The held-out prompts.
            max_new_tokens: Largest number of response tokens.
            on_long: ``refuse`` or ``cut`` prompts that leave no room for the response.

        Raises:
            ConfigError: The model does not have one of the layers, or the prompts differ from those of the resumed
                run.
            PromptError: Some prompts cannot be encoded; the message lists all of them.
        """
        held_out = make_probes(lm, prompts, max_new_tokens, self.batch_tokens, on_long)
        self._probes = held_out.first(self.settings.probes)
        self._held_out = replace(held_out, encoded=tuple(e for e in held_out.encoded if e.prompt.check))
        # A resumed run may continue the curves only if prompts and settings are the same.
        self._id = digest(
            [[e.input_ids for e in held_out.encoded], len(self._probes.encoded), max_new_tokens, vars(self.local)]
        )
        self._about = {
            "start": {**lm.identity.to_dict(), "template": lm.template},
            "held_out": {"name": prompts.where, "n": len(held_out.encoded), "probes": len(self._probes.encoded)},
        }
        if self.lexicon is not None:
            asked = self.settings
            depth = int(lm.model.config.get_text_config().num_hidden_layers)
            layers = select(asked.layers, depth, "callbacks.shift.layers")
            if asked.rotation != "off":
                self._concepts = ConceptWatch(layers, asked.components, asked.top_words, self.lexicon)
            if asked.pairs != "off":
                self._pairs = PairWatch(layers, asked.top, self.lexicon)
                _ = self.lexicon.threshold  # fetch the vectors now: an error after the last step would be too late
        if self._pending:
            self._restore(self._pending)

    def look(self, lm: LM, step: int, last: bool) -> dict[str, float]:
        """Measure the parts that are due at a step.

        Args:
            lm: The model at this step, frozen and without LoRA modules.
            step: Number of optimizer steps done.
            last: Whether this is the last look, which also answers the held-out prompts and runs the tests.

        Returns:
            The numbers under the names that loggers get.
        """
        history = self.found
        number = sorted({*history.steps, step}).index(step)
        # Measure everything again if the run was resumed, or if the weights differ from those of the last step.
        known = history.concluded is None and step in self._live
        done = history.steps[step] if known else []
        due = [part for part in self.settings.due(number, last) if part not in done]
        history.steps[step] = [*done, *due]
        self._live.add(step)
        points: list[Point] = []
        if {"follow", "density"} & set(due):
            answers = self._timed(step, "responses", lambda: answer(lm, self._probes))
            if "follow" in due:
                points += self._followed(lm, step, answers)
            if "density" in due:
                points += self._densities(lm, step, answers)
        if "rotation" in due and (watch := self._concepts) is not None:
            points += rotation_points(step, self._timed(step, "rotation", lambda: watch.look(lm)))
        if "pairs" in due and (heads := self._pairs) is not None:
            points += self._timed(step, "pairs", lambda: self._verbs(heads, lm, step))
        history.points |= {(p.step, p.measure, p.group): p for p in points}
        if not history.before:
            history.before = self._timed(step, "held_out", lambda: self._judge(lm))
        if last:
            history.after = self._timed(step, "held_out", lambda: self._judge(lm))
            history.concluded = step
            self._training = self._timed(step, "tests", self._conclude)
        return logged(point for point in history.points.values() if point.step == step)

    def result(self) -> Training:
        """Return all results; may be called only after the last look."""
        assert self._training is not None, "the last look was taken"
        return replace(self._training, curves=self.found.curves(), seconds=self.found.looks_table())

    def record(self) -> dict[str, Any]:
        """Return rates with intervals, findings and times, as plain values."""
        return self.found.record(self._training.findings if self._training is not None else ())

    def state(self) -> dict[str, Any]:
        """Return the measurements so far, as plain values and tensors."""
        if not self.found.steps:
            return dict(self._pending)
        watches = {"concepts": self._concepts, "pairs": self._pairs}
        firsts = {name: watch.state() for name, watch in watches.items() if watch is not None}
        return {"id": self._id, **self.found.state(), **firsts}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Restore earlier measurements, at once or as soon as the prompts are encoded.

        Args:
            state: State from :meth:`state`.

        Raises:
            ConfigError: The state belongs to other prompts or settings.
        """
        self._pending = dict(state)
        if state and hasattr(self, "_probes"):
            self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state["id"] != self._id:
            raise ConfigError(
                "callbacks.shift: the checkpoint's curves are of other held-out prompts, probes or saliency.L, b "
                "or p; resume with those of its run, or begin a new one with ckpt_path=null"
            )
        self.found = Found.of(state)
        self._pending = {}
        if self.found.rows:
            self._first = restored(self.found.rows, self._probes, self.local)
        for name, watch in (("concepts", self._concepts), ("pairs", self._pairs)):
            if watch is not None and name in state:
                watch.restore(state[name])

    def _timed(self, step: int, part: str, work: Callable[[], T]) -> T:
        started = time.monotonic()
        made = work()
        seconds = self.found.seconds
        seconds[step, part] = seconds.get((step, part), 0.0) + time.monotonic() - started
        return made

    def _followed(self, lm: LM, step: int, answers: Answers) -> list[Point]:
        prompts = [e.prompt for e in self._probes.encoded]
        return follow_points(
            step,
            [(checker(p.check), followed(p.check, _text(lm, answers[p.id]))) for p in prompts if p.check],
        )

    def _densities(self, lm: LM, step: int, answers: Answers) -> list[Point]:
        def explained(probes: Any, given: Answers) -> list[Measured]:
            return explain(lm, probes, given, self.engine, self.local, "tuned")

        own = self._timed(step, "density", lambda: explained(self._probes, answers))
        if not self._first:
            self._first, self.found.answers, self.found.rows = own, answers, kept(own)
        texts = {"own": own}
        if self.settings.fixed:
            first = self.found.answers
            # Responses that are still the same as at the first look are already explained.
            same = {
                m.encoded.prompt.id: m for m in own if answers[m.encoded.prompt.id] == first[m.encoded.prompt.id]
            }
            rest = self._timed(step, "fixed", lambda: explained(self._probes.without(same), first))
            same |= {m.encoded.prompt.id: m for m in rest}
            texts["fixed"] = [same[e.prompt.id] for e in self._probes.encoded]
        self._last = texts
        for text, measured in texts.items():
            rows = probe_rows(step, text, measured)
            self.found.probes |= {(step, text, row["id"]): row for row in rows}
        return [point for text, measured in texts.items() for point in density_points(step, measured, text)]

    def _verbs(self, watch: PairWatch, lm: LM, step: int) -> list[Point]:
        section = watch.section(lm, self.settings.seed)
        parts = depth_parts(list(watch.layers), watch.depth)
        heads = {name: int(in_part.sum()) * watch.heads for name, in_part in parts.items()}
        return pair_points(step, section.tables["verb_shares"], heads)

    def _judge(self, lm: LM) -> Judged:
        """Return, for each held-out prompt with a check, whether the model follows it, and the response."""
        if not self._held_out.encoded:
            return {}
        answers = answer(lm, self._held_out)
        texts = {e.prompt.id: _text(lm, answers[e.prompt.id]) for e in self._held_out.encoded}
        prompts = [e.prompt for e in self._held_out.encoded]
        return {p.id: [followed(p.check, texts[p.id]), texts[p.id]] for p in prompts if p.check}

    def _conclude(self) -> Training:
        history, seed = self.found, self.settings.seed
        probes = probes_table(list(history.probes.values()))
        findings = behaviour_findings(
            history.change, self._first, self._last, probes, self.local, history.concluded, seed
        )
        tables: dict[str, pd.DataFrame] = {}
        for watch in (self._concepts, self._pairs):
            section = None if watch is None else watch.conclusions(seed)
            if section is not None:
                findings += section.findings
                tables |= section.tables
        about = provenance(
            **self._about,
            settings={**vars(self.local), "target": self.engine.target},
            shift={**vars(self.settings), "looks": sorted(history.steps), "kept": history.concluded},
        )
        held_out = history.held_out_table(self._held_out.encoded)
        judged = list(Section(findings).findings)
        curves, seconds = history.curves(), history.looks_table()
        return Training(judged, curves, probes, held_out, seconds, history.change, about, tables)


def _text(lm: LM, ids: Sequence[int]) -> str:
    return str(lm.tokenizer.decode(list(ids), skip_special_tokens=True))

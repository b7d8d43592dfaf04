# ruff: noqa: INP001 - a script, no package
"""Builds a tiny language model that speaks the project's chat and answer format: `python scripts/tiny_model.py FOLDER`.

It runs in the environment of `scripts/vllm-cpu` (torch, transformers, tokenizers), on the project's own texts, in 1 to 3 minutes.
The server enforces the grammar of the answers, so a random network would do for that; but it never closes a string, so every
answer is cut off. This one is therefore trained until it closes its strings: "about", and the section of an article.
What it writes is worth nothing. It shows that requests, answers, limits and failures work with a real server.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from contracts.records import HistoryEntry, ItemEvent, KnowledgeRequest
from extractor.prompts import Prompt, build_prompt
from extractor.scenario import Scenario, load_scenario, shipped_scenarios

ARTICLES: Final = Path(__file__).parents[1] / "examples" / "news" / "articles.jsonl"
END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY: Final = 2_048
MAX_POSITIONS: Final = 8_192
STEPS: Final = 100
BATCH: Final = 8
LEARNING_RATE: Final = 3e-3
WARM_UP_STEPS: Final = 10
WITH_INSTRUCTIONS: Final = 4  # every so many steps: they are most of the length, and the answer hangs on little of them
SAID_EVERY: Final = 10  # steps
SEED: Final = 5
IGNORED: Final = -100  # torch's label for "no loss here"


def main(arguments: Sequence[str]) -> int:
    """Build the model into a folder; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    began = time.monotonic()
    rng = random.Random(SEED)  # noqa: S311 - a training set, no secret
    torch.manual_seed(SEED)
    scenarios = [load_scenario(name) for name in shipped_scenarios()]
    articles = [msgspec.json.decode(line, type=ItemEvent) for line in ARTICLES.read_bytes().splitlines()]
    tokenizer = make_tokenizer(dialogues(scenarios, articles, rng, n=2_000))
    model = make_model(tokenizer)
    loss = train(model, tokenizer, dialogues(scenarios, articles, rng, n=STEPS * BATCH))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(  # noqa: T201 - a script's output
        f"{folder}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens, last loss {loss:.2f}, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 0


def dialogues(
    scenarios: Sequence[Scenario], articles: Sequence[ItemEvent], rng: random.Random, *, n: int
) -> Iterator[tuple[Prompt, str]]:
    """Prompts about articles and about readers of articles, in the words of every scenario, with an answer to each."""
    for _ in range(n):
        scenario = rng.choice(scenarios)
        if rng.random() < 0.5:  # noqa: PLR2004 - items and users alike
            last = rng.choice(articles)
            request = _request("item:a", item=last)
        else:
            seen = rng.sample(articles, k=rng.randint(1, 4))
            history = tuple(_seen(item, rng.choice((True, False, None))) for item in seen)
            request = _request("user:a", history=history)
            last = seen[-1]
        # the same few words everywhere, so that what follows a word hangs on that word: a closed string is learnt first
        words = f"about {last.attributes['section'][0]}"
        yield build_prompt(scenario, request), json.dumps({"factors": dict.fromkeys(scenario.factors, words), "summary": words})


def _seen(item: ItemEvent, liked: bool | None) -> HistoryEntry:
    action = "view" if liked is None else "like" if liked else "dislike"
    return HistoryEntry(
        item=item.item, title=item.title, action=action, event_ms=0, liked=liked, attributes=dict(item.attributes)
    )


def _request(subject: str, **about: Any) -> KnowledgeRequest:
    return KnowledgeRequest(
        subject=subject,
        mode="individual",
        reason="new_item",
        priority=0.0,
        as_of_ms=0,
        trigger_ms=0,
        source_hash="",
        **about,
    )


def make_tokenizer(samples: Iterator[tuple[Prompt, str]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the project's texts, with the ChatML template."""
    bpe = ByteLevelBPETokenizer()
    texts = (text for prompt, answer in samples for text in (prompt.system, prompt.user, answer))
    bpe.train_from_iterator(texts, vocab_size=VOCABULARY, min_frequency=2, special_tokens=[PAD, START, END], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,  # noqa: SLF001 - the class wraps it and gives no other access
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        model_max_length=MAX_POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 of 3 layers, 192 wide."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,  # one that vLLM's CPU attention knows
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        bos_token_id=None,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


def train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, samples: Iterator[tuple[Prompt, str]]) -> float:
    """Train on the answers alone; returns the last loss (nats per token)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / WARM_UP_STEPS, 1 - 0.9 * step / STEPS))
    model.train()
    loss = torch.tensor(float("nan"))
    for step in range(STEPS):
        loss = model(**_batch([next(samples) for _ in range(BATCH)], tokenizer, whole=step % WITH_INSTRUCTIONS == 0)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if sys.stderr.isatty() or (step + 1) % SAID_EVERY == 0:
            print(f"step {step + 1} of {STEPS}: loss {loss.item():.3f}", file=sys.stderr)  # noqa: T201 - a script's output
    return loss.item()


def _batch(samples: Sequence[tuple[Prompt, str]], tokenizer: PreTrainedTokenizerFast, *, whole: bool) -> dict[str, torch.Tensor]:
    """Token ids, mask and labels of some dialogues, each (B, T), padded on the right."""
    rows = []
    for prompt, answer in samples:
        messages = [{"role": "user", "content": prompt.user}]
        if whole:
            messages.insert(0, {"role": "system", "content": prompt.system})
        asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before = tokenizer(asked, add_special_tokens=False)["input_ids"]
        after = tokenizer(answer + END, add_special_tokens=False)["input_ids"]
        rows.append((before + after, [IGNORED] * len(before) + after))
    length = max(len(ids) for ids, _ in rows)
    pad = tokenizer.pad_token_id
    return {
        "input_ids": torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([labels + [IGNORED] * (length - len(labels)) for _, labels in rows]),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

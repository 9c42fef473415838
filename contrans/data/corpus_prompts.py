"""What the model is asked for when the corpus is sampled: prompts, topics, openings, drawn from a seed.

The answer is made to start with an opening, so that people, places, tenses and sentence shapes vary more than
a small model would vary them by itself. The texts stand in `corpora/prompts.yaml` and `corpora/topics.yaml`.
"""

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerBase

# Openings of `topics.yaml` that suit one source only; the others tell a story.
OPENING_SOURCES = {
    "question": r"(Why|How|Who|Where|Which|Could|Should|Is it|Have you|What happens)\b",
    "instruction": r"(Before you|To make|First, take|Do not|Keep|Make sure|Start by|Never|Turn|Place the"
    r"|Remember to|You should|Cut|If you ever|If I were)\b",
    "message": r"(Dear|I'm writing)\b",
    "fact": r"(Most people|There are|Scientists|The simplest|Compared|It is often|One of the oldest|The main"
    r"|Unlike|Only a|The word|Until|It depends|It takes|Given|Researchers|An early|For example|This kind"
    r"|Water|In most|The law|People who|The price|A good rule|You might|The answer|The second|Here is"
    r"|The instructions)\b",
}


@dataclass(frozen=True)
class Request:
    """One passage to be sampled: its kind, what the model reads, how it begins and where it may stop."""

    kind: str
    prompt: str
    opening: str
    min_words: int


@dataclass(frozen=True)
class Pool:
    """What requests are drawn from: prompt groups by kind, topics, places, and openings by source."""

    groups: dict[str, list[dict[str, Any]]]
    topics: list[str]
    places: list[str]
    openings: dict[str, list[str]]
    past: list[str]
    present: list[str]

    @classmethod
    def read(cls, folder: Path) -> "Pool":
        """Reads `topics.yaml` and `prompts.yaml` of a folder and sorts the openings by source."""
        topics = yaml.safe_load((folder / "topics.yaml").read_text(encoding="utf-8"))
        prompts = yaml.safe_load((folder / "prompts.yaml").read_text(encoding="utf-8"))
        openings: dict[str, list[str]] = defaultdict(list)
        for source, more in prompts["openings"].items():
            openings[source].extend(more)
        for opening in topics["openings"]:
            sources = (source for source, pattern in OPENING_SOURCES.items() if re.match(pattern, opening))
            openings[next(sources, "narrative")].append(opening)
            openings["any"].append(opening)
        openings["person"] = openings["person and verb"] = prompts["person"]
        return cls(
            groups=prompts["groups"],
            topics=topics["topics"],
            places=prompts["place"],
            openings=dict(openings),
            past=prompts["past"],
            present=prompts["present"],
        )


class RequestMaker:
    """Draws requests from a pool of prompts, topics and openings, reproducibly from a seed."""

    def __init__(self, pool: Pool, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> None:
        self._random = random.Random(seed)
        self._pool = pool
        self._tokenizer = tokenizer

    def draw(self, kind: str) -> Request:
        """One request of a kind, with a random group, prompt, topic, place, opening and length."""
        groups = self._pool.groups[kind]
        (group,) = self._random.choices(groups, weights=[g["weight"] for g in groups])
        topic, place = self._random.choice(self._pool.topics), self._random.choice(self._pool.places)
        opening = self._opening(group["openings"], topic)
        min_words = 15 if self._random.random() < 0.2 else 9
        if not group["prompts"]:
            return Request(kind, opening, opening, min_words)
        # The chat template would put its own system message, twice as long as most prompts.
        messages = [
            {"role": "system", "content": ""},
            {
                "role": "user",
                "content": self._random.choice(group["prompts"]).format(topic=topic, place=place),
            },
        ]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return Request(kind, f"{prompt}{opening}", opening, min_words)

    def _opening(self, source: str, topic: str) -> str:
        if source == "none":
            return ""
        if source == "topic":
            return topic[0].upper() + topic[1:]
        opening = self._random.choice(self._pool.openings[source])
        if source == "person and verb":
            # A third in the second person, as many everyday scenarios are told.
            second = opening == "You" or self._random.random() < 0.3
            opening = "You" if second else opening
            opening = f"{opening} {self._random.choice(self._pool.present if second else self._pool.past)}"
        return opening

"""Which sampled text is a passage: cut at a sentence's end, plain, complete, and unlike the others.

Everything here is a pure function on strings, except `PassageFilter`, which remembers what it let through.
"""

import re
from collections import Counter, defaultdict

from contrans.hashing import text_hash

MIN_WORDS, MAX_WORDS = 8, 32
MAX_SAME_START = 6
MAX_JACCARD = 0.5

# The corpus must not name the concepts that its map will carry.
_CONCEPT_WORDS = re.compile(r"\b(happiness|sadness|anger|fear|disgust|surprise)\b", re.IGNORECASE)
_ASSISTANT_TALK = re.compile(
    r"\b(as an ai|language model|ai assistant|ai-powered|ai model|smollm|hugging face|this sentence"
    r"|(opening|short|following|simple|one) sentence|one[- ]sentence|short story"
    r"|text message|an expert|protagonist)\b",
    re.IGNORECASE,
)
_BAD_START = re.compile(r"(sure|here is|here are|here's|certainly|of course!|title|note)\b", re.IGNORECASE)
_UNWANTED = re.compile(
    r"\b(sex\w*|porn\w*|naked|nude|rap(e|es|ed|ist)|suicid\w*|nazis?|hitler|genital\w*|incest|fuck\w*|shit\w*)\b",
    re.IGNORECASE,
)
_OFFENSIVE = re.compile(
    r"\b(bitch\w*|whore\w*|prostitut\w*|traffick\w*|murder\w*|assault\w*|molest\w*|tortur\w*|slut\w*"
    r"|eat him|human sacrifice|and killed|be killed|then killed|slaughter\w*)\b",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[*#_`|<>{}\[\]\\=~^]|https?:|www\.|\w@\w|\.(com|org|net)\b|\.\.|--|^[-•]|^\W*\d+[.)]")
_REPEATED_WORD = re.compile(r"\b(\w+) \1\b", re.IGNORECASE)
_GLUED = re.compile(r"[a-z][.!?][A-Z]|[a-z][A-Z]{2,}|\w{22}|[,;:][,;:]| [,.;:!?]")
_ABBREVIATION = re.compile(r"(?:\b(?:mr|mrs|ms|dr|st|prof|sr|jr|vs|etc|no|e\.g|i\.e|a\.m|p\.m)|\b[A-Z]|\d)$", re.I)
_SENTENCE_END = re.compile(r"[.!?]+[\"']?(?=\s|$)")
_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "…": "..."})
_QUESTION_START = re.compile(
    r"(why|how|who|where|which|what|is|are|can|could|should|would|do|does|did|has|have|will|was|were)\b", re.I
)


def cut_at_sentence_end(text: str, *, min_words: int = MIN_WORDS) -> str | None:
    """The shortest run of whole sentences with at least `min_words` words, or None if none ends so far.

    A full stop after an abbreviation, an initial or a digit, or inside an open quotation, is not an end.
    """
    text = text.translate(_TYPOGRAPHY).strip()
    for end in _SENTENCE_END.finditer(text):
        passage = text[: end.end()]
        if _ABBREVIATION.search(text[: end.start()]) and text[end.start()] == ".":
            continue
        if passage.count('"') % 2 == 0 and len(passage.split()) >= min_words:
            return passage
    return None


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The set of word trigrams of a text, blind to case and punctuation."""
    words = re.findall(r"[^\W_]+", text.casefold())
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def flaw(passage: str, *, question: bool = False) -> str | None:
    """Names what keeps a text from being a plain, complete passage; None if nothing does.

    Args:
        passage: one or two sentences, as `cut_at_sentence_end` returns them.
        question: whether the passage must end in a question mark.
    """
    words = passage.split()
    letters = [c for c in passage if not c.isascii()]
    distinct = {w.casefold().strip(".,;:!?\"'") for w in words}
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    checks = (
        ("length", not MIN_WORDS <= len(words) <= MAX_WORDS),
        ("unfinished", cut_at_sentence_end(passage, min_words=len(words)) != passage),
        ("sentences", len(_SENTENCE_END.findall(passage)) > 2),
        ("start", not re.match(r"[\"']?[A-Z]", passage) or _BAD_START.match(passage) is not None),
        ("line break", any(c in passage for c in "\n\r\t")),
        ("script", len(letters) > 2 or not all(c.isalpha() and c < "\u0250" for c in letters)),
        ("markup", _MARKUP.search(passage) is not None),
        ("digits", sum(c.isdigit() for c in passage) > 6),
        ("shouting", sum(c.isupper() for c in passage) > len(passage) // 6),
        ("assistant talk", _ASSISTANT_TALK.search(passage) is not None),
        ("unwanted", _UNWANTED.search(passage) is not None),
        ("concept word", _CONCEPT_WORDS.search(passage) is not None),
        ("repeated word", _REPEATED_WORD.search(passage) is not None or len(distinct) < 0.6 * len(words)),
        ("repeated phrase", len(set(trigrams)) < len(trigrams)),
        ("glued", _GLUED.search(passage) is not None),
        ("brackets", passage.count("(") != passage.count(")") or passage.count('"') % 2 == 1),
        ("question", question and not (passage.endswith("?") and _QUESTION_START.match(passage))),
        ("not a question", not question and passage.endswith("?") and '"' not in passage),
    )
    return next((name for name, failed in checks if failed), None)


def offensive(passage: str) -> bool:
    """Whether a passage tells of violence or degradation that nobody wants to read in a corpus."""
    return _OFFENSIVE.search(passage) is not None


class PassageFilter:
    """Lets a passage through once: no exact or near duplicates, few with the same first three words.

    Near duplicates share at least half of their word trigrams (Jaccard); an index from trigram to passages
    keeps the cost of a look-up to the passages that share a trigram at all.
    """

    def __init__(self) -> None:
        self._hashes: set[str] = set()
        self._shingles: list[frozenset[tuple[str, ...]]] = []
        self._index: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._starts: Counter[str] = Counter()

    def reject(self, passage: str, *, question: bool = False) -> str | None:
        """Names why a passage is not let through; None, and the passage is remembered, if it is.

        Args:
            passage: one or two sentences.
            question: whether it must be a question.
        """
        reason = flaw(passage, question=question)
        if reason is not None:
            return reason
        key, parts = text_hash(passage), shingles(passage)
        start = " ".join(passage.casefold().split()[:3])
        if key in self._hashes:
            return "duplicate"
        if self._starts[start] >= MAX_SAME_START:
            return "same start"
        shared = Counter(number for part in parts for number in self._index.get(part, ()))
        for number, common in shared.items():
            if common >= MAX_JACCARD * (len(parts) + len(self._shingles[number]) - common):
                return "near duplicate"
        self._hashes.add(key)
        self._starts[start] += 1
        for part in parts:
            self._index[part].append(len(self._shingles))
        self._shingles.append(parts)
        return None

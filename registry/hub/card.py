"""The model card of a published concept, rendered from its manifest alone."""

from collections.abc import Iterator, Sequence

from huggingface_hub import ModelCard, ModelCardData

from contrans.errors import ArtifactError
from contrans.report.evidence import Evidence
from contrans.validation.grids import Grid, markdown_text
from contrans.validation.row_table import COSTS, MEAN
from registry.hub import exports
from registry.hub.manifest import MANIFEST, TENSORS, Manifest, ValidationEntry, VectorEntry
from registry.hub.public import licence_fields

TAGS = ("contrans", "steering-vector", "representation-engineering", "concept-transplantation")
_CONCEPT_TAG = "concept:"


def render(manifest: Manifest, repo: str, *, licence: str | None = None) -> str:
    """Renders the card.

    Args:
        manifest: what is published.
        repo: where to.
        licence: identifier of the Hub; by default the one that all parts share, else "other".

    Returns:
        `README.md`: metadata for the Hub, what it does, how to use it, results with controls, limits, licence.

    Raises:
        RegistryError: the Hub does not know the licence.
    """
    bases = dict.fromkeys(v.model.base_model for v in manifest.vectors if v.model.base_model)
    data = ModelCardData(
        base_model=list(bases) or None,
        library_name="contrans",
        tags=[*TAGS, f"{_CONCEPT_TAG}{manifest.concept}"],
        **licence_fields(_licences(manifest), licence),  # pyright: ignore[reportArgumentType]
    )
    parts = [*_opening(manifest), *_use(manifest, repo), *_results(manifest), *_closing(manifest)]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n").content


def concept_of(tags: Sequence[str]) -> str | None:
    """The concept that a card's tags name."""
    return next((tag.removeprefix(_CONCEPT_TAG) for tag in tags if tag.startswith(_CONCEPT_TAG)), None)


def _opening(manifest: Manifest) -> Iterator[str]:
    source = manifest.source.model
    targets = ", ".join(f"`{v.model.reference}`" for v in manifest.transplants)
    yield f"# {markdown_text(manifest.concept)}, transplanted from {markdown_text(source.name)}"
    if manifest.description:
        yield markdown_text(manifest.description)
    yield (
        f"Directions in the residual stream that stand for the concept **{markdown_text(manifest.concept)}**. They "
        f"were refined from the hidden states of `{source.reference}` and carried by a fitted map, without training, "
        f"into {targets}. Added to the residual stream, they make the model's text lean towards the concept; taken "
        "away, away from it."
    )
    rows = [_row(manifest.source, "as refined"), *(_row(v, "transplant") for v in manifest.transplants)]
    yield Grid("", ("for the model", "what", "blocks", "put in at block", "dose"), tuple(rows)).markdown_table()


def _row(vector: VectorEntry, what: str) -> tuple[str, ...]:
    blocks = sorted(map(int, vector.blocks))
    span = str(blocks[0]) if len(blocks) == 1 else f"{blocks[0]} to {blocks[-1]}"
    at = "–" if vector.block is None else str(vector.block)
    return vector.model.reference, what, span, at, "–" if vector.dose is None else f"{vector.dose:g}"


def _use(manifest: Manifest, repo: str) -> Iterator[str]:
    first = manifest.transplants[0]
    block = "" if len(first.blocks) == 1 or first.block is None else f", block={first.block}"
    yield "## Use"
    yield (
        "```python\n"
        "import contrans  # pip install contrans\n"
        f'target = contrans.load_model("{first.model.reference}")\n'
        f'vector = contrans.pull("{repo}@{manifest.tag}", target=target)\n'
        f"with contrans.transplant(target, vector, dose={first.dose or 0.2:g}{block}):\n"
        '    print(target.complete("I opened the letter and"))\n'
        "```"
    )
    yield (
        "`contrans.pull` checks size and SHA-256 of everything against the manifest, and that the model is the one "
        "the directions were fitted for. The dose is the shift in median norms of the residual stream."
    )
    if told := list(exports.lines(manifest)):
        yield (
            "Without contrans: the same shift with its dose folded in, as other tools read it. They add it at every "
            "token, at BOS too, with a coefficient of 1."
        )
        yield "\n".join(told)


def _results(manifest: Manifest) -> Iterator[str]:
    names = {v.registered.ref: v.model.name for v in manifest.transplants}
    if not any(v.results for v in manifest.validations):
        yield "## Evidence"
        yield "**None of this was validated.** It was published all the same; nobody knows what it does."
    for validation in manifest.validations:
        evidence = list(_evidence(validation, manifest, names.get(validation.of, "")))
        yield from evidence
        for figure in validation.figures if evidence else ():
            yield f"![{figure.rpartition('/')[2]}]({figure})"


def _evidence(validation: ValidationEntry, manifest: Manifest, target: str) -> Iterator[str]:
    concept = manifest.concept
    gain = (validation.settings.get("summary") or {}).get("gain_recovered_of_concept")
    every = [result.model_dump() for result in validation.results]
    for protocol in dict.fromkeys(row["protocol"] for row in every):
        rows = [row for row in every if row["protocol"] == protocol]
        # Of a run over several concepts only this one's numbers belong here, and what a shift costs.
        own = [row for row in rows if row["concept"] == concept or (row["concept"] == MEAN and row["metric"] in COSTS)]
        is_main = protocol == validation.protocol
        try:
            found = Evidence.of(
                own if any(row["concept"] == concept for row in own) else rows,
                protocol=protocol,
                summary={f"gain_recovered/{concept}": gain} if is_main and gain else {},
                source=manifest.source.model.name,
                target=target,
            )
        except ArtifactError:
            continue  # rows of costs alone have no effect to show
        yield found.markdown().strip()


def _closing(manifest: Manifest) -> Iterator[str]:
    yield "## Limits and intended use"
    yield (
        "- Made for research on how language models represent concepts, and for steering them in experiments.\n"
        "- It was measured on the models, prompts, languages and doses above; elsewhere it may do nothing, or other "
        "things. Compare it with the controls in the table, and measure again on your own texts.\n"
        "- A dose above the one given costs fluency. A shift of the residual stream is no guarantee: it makes some "
        "outputs likelier, and neither filters nor proves anything.\n"
        "- Do not use it to steer people without their knowledge, or where the model's output decides about them."
    )
    yield "## How it was made"
    made = [a for a in manifest.lineage if a.registered.kind in ("vector", "map")]
    lines = [f"- {a.registered.kind} `{a.registered.ref}`: {_estimator(a.settings)}" for a in made]
    lines += [
        f"- texts `{s.registered.ref}`: {'?' if s.n_texts is None else s.n_texts} texts"
        f"{f', split {markdown_text(s.split)}' if s.split else ''}, hash `{s.hash[:16]}`"
        for s in manifest.splits
    ]
    yield "\n".join(lines) or "The lineage names nothing."
    yield (
        f"Version {manifest.registered.number} of `{manifest.registered.name}`. `{MANIFEST}` holds the whole lineage, "
        f"settings, text hashes and library versions; `{TENSORS}` one float32 tensor per block: `source.block.N`, "
        f"`target.MODEL.block.N`."
    )
    yield "## Licence"
    parts = {f"`{v.model.reference}`": v.model.licence for v in manifest.vectors}
    parts |= {f"texts `{s.registered.name}`": s.licence for s in manifest.splits}
    yield "The directions derive from these, and their terms go on holding:\n\n" + "\n".join(
        f"- {name}: {markdown_text(licence or 'not known')}" for name, licence in parts.items()
    )


def _estimator(settings: dict[str, object]) -> str:
    said = [f"{k} {settings[k]}" for k in ("estimator", "source_block", "target_block", "lambda") if k in settings]
    return markdown_text(", ".join(said).removeprefix("estimator ") or "see the manifest")


def _licences(manifest: Manifest) -> list[str | None]:
    return [v.model.licence for v in manifest.vectors] + [s.licence for s in manifest.splits]

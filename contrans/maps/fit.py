"""Fitting maps: the same texts through both models, and an estimator on the paired states."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from contrans.concepts.contrast import ContrastSet
from contrans.concepts.positions import TokenPosition, token_spans, usual_position
from contrans.errors import FitError, StateError
from contrans.maps.affine import AffineMap, MapSet
from contrans.maps.corpora import Corpus, check_circularity
from contrans.maps.depth import SOURCE_DEPTH, TARGET_DEPTH, block_at
from contrans.maps.estimators import MAP_ESTIMATORS, MOMENT_ESTIMATORS, ridge
from contrans.maps.estimators.fit import Fit
from contrans.maps.paired import Rows
from contrans.maps.side_by_side import EXACT, paired_blocks
from contrans.maps.splits import SourceCache
from contrans.maps.streaming import stream_moments
from contrans.models import Model, ModelRecord
from contrans.states.by_kind import BLOCK_ROWS
from contrans.states.capturing import Progress, capture
from contrans.states.encode import encode
from contrans.states.moments import Moments

log = logging.getLogger(__name__)

LAMBDA_SELECT = ("r2", "direction")


def fit_map(
    source: Model,
    target: Model,
    texts: Corpus,
    *,
    source_blocks: Sequence[int] | None = None,
    target_blocks: Sequence[int] | None = None,
    estimator: str = "ridge",
    tokens: str = "last",
    source_position: str | None = None,
    center: str = "kind",
    share: Mapping[str, float] = {},
    per_document: int | None = None,
    lambda_select: str = "r2",
    judged_by: Iterable[ContrastSet] = (),
    held_out: float = 0.2,
    seed: int = 0,
    precision: str = "float32",
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> MapSet:
    """Fits affine maps from the source's hidden space to the target's, on the same texts.

    Source: Dong et al. 2024 (arXiv 2405.13578), §3.2, with centring, a bias and ridge regularisation.

    Args:
        source: the model that concepts come from.
        target: the model that they go to.
        texts: a corpus; wrapping part of it in the concept's template is what matters most.
        source_blocks: blocks of the source, a map from each; the one at depth .9 if None.
        target_blocks: blocks of the target, a map to each; the one at depth .78 if None.
        estimator: a key of `contrans.maps.estimators.MAP_ESTIMATORS`.
        tokens: "last" fits on the last token of each text; "all" on all tokens that end at the same character in both
            models, by the estimators of `MOMENT_ESTIMATORS`, in memory that does not grow with the corpus.
        source_position: the tokens that the source is read at, as its vectors were refined: "last" if None, and "mean"
            for an encoder, see `contrans.refine`. The target is read at the last token.
        center: "kind" centres the rows of each kind of text (each template) on a mean of their own, so that the map
            explains what the texts say and not which template they stand in; "all" centres all rows together.
        share: share of the fit's weight that a kind of text gets; the others divide the rest by their rows.
        per_document: with tokens="all", most pairs of one document; every pair if None.
        lambda_select: "r2" or "direction", see `contrans.maps.estimators.ridge`.
        judged_by: contrast sets that the maps will be judged by; their texts must not be in the corpus.
        held_out: share of the documents that λ is chosen on.
        seed: of the held-out split.
        precision: "float32" or "bfloat16" products.
        batch_tokens: most tokens in one batch.
        progress: called with the number of tokens after every batch.

    Returns:
        One `AffineMap` per pair of a source and a target block.

    Raises:
        CircularityError: a contrast text stands in the corpus.
        SpecError: unknown position.
        FitError: unknown estimator, too few texts.
        ModelError: with tokens="all", tokenizers that differ and know no character offsets.
        BlockError, TextError, StateError: as `capture` raises them.
    """
    for contrast in judged_by:
        check_circularity(texts.texts, contrast.texts)
    source_blocks = [block_at(SOURCE_DEPTH, source.n_blocks)] if source_blocks is None else source_blocks
    target_blocks = [block_at(TARGET_DEPTH, target.n_blocks)] if target_blocks is None else target_blocks
    source_position = source_position or ("last" if tokens == "all" else usual_position(source.family))
    facts = {"corpus": texts.name, "texts": texts.hash, "precision": precision, "tokens": tokens}
    if source_position != "last":
        facts["source_position"] = source_position
    if tokens == "all":
        if estimator not in MOMENT_ESTIMATORS or lambda_select != "r2":
            raise FitError(
                f"All tokens are mapped from their moments alone, which serve {', '.join(MOMENT_ESTIMATORS)} with "
                f"lambda_select='r2'; use tokens='last' for anything else."
            )
        if source_position != "last":
            raise FitError(
                f"All tokens are paired one by one, so none of them is read at {source_position!r}; use tokens='last'."
            )
        streamed = stream_moments(
            source,
            target,
            texts,
            source_blocks=source_blocks,
            target_blocks=target_blocks,
            center=center,
            share=share,
            per_document=per_document,
            held_out=held_out,
            seed=seed,
            precision=precision,
            batch_tokens=batch_tokens,
            progress=progress,
        )
        facts |= {"held_out": held_out, "seed": seed, "center": center, "share": dict(share)}
        maps = {}
        for pair, m in streamed.items():
            fit = MOMENT_ESTIMATORS[estimator](m)
            made = _map(pair, fit, m.whole, m.target_norm, estimator, {**facts, **m.info})
            # the spread of a residual stream has the kinds' own differences, which fixed effects leave out of `whole`
            source_spread, target_spread = m.spreads
            maps[pair] = replace(made, source_spread=source_spread, target_spread=target_spread)
        _warn_of_few(source.record, target.record, min(m.train.n + m.held.n for m in streamed.values()))
        return MapSet(source.record, target.record, maps)
    if tokens != "last":
        raise FitError(f"tokens must be 'last' or 'all', not {tokens!r}.")
    spans = None  # the last token, which needs no offsets
    if source_position != "last":
        encoded = encode(source, texts.texts)
        spans = token_spans(TokenPosition.parse(source_position), encoded, texts.texts, [""] * len(texts.texts))
    of_source = capture(
        source,
        texts.texts,
        blocks=source_blocks,
        spans=spans,
        precision=precision,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    of_target = capture(
        target,
        texts.texts,
        blocks=target_blocks,
        precision=precision,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    return fit_states(
        of_source.blocks,
        of_target.blocks,
        documents=texts.documents,
        source=source.record,
        target=target.record,
        estimator=estimator,
        kinds=texts.kinds,
        center=center,
        share=share,
        lambda_select=lambda_select,
        held_out=held_out,
        seed=seed,
        info=facts,
    )


def fit_states(
    source_states: Mapping[int, torch.Tensor],
    target_states: Mapping[int, torch.Tensor],
    *,
    documents: Sequence[str],
    source: ModelRecord,
    target: ModelRecord,
    estimator: str = "ridge",
    kinds: Sequence[str] = (),
    center: str = "kind",
    share: Mapping[str, float] = {},
    lambda_select: str = "r2",
    held_out: float = 0.2,
    seed: int = 0,
    info: Mapping[str, object] = {},
    spectra: dict[int, SourceCache] | None = None,
) -> MapSet:
    """Fits maps on states that were captured before, for every pair of a source and a target block.

    Args:
        source_states: per block [n, ds].
        target_states: per block [n, dt], row i from the same text as row i of the source.
        documents: the document of each row.
        source: whose states the first are.
        target: whose states the second are.
        estimator: a key of `contrans.maps.estimators.MAP_ESTIMATORS`.
        kinds: how each row's text was made; none if all in one way.
        center: "kind" or "all", see `fit_map`.
        share: share of the fit's weight by kind, see `fit_map`.
        lambda_select: "r2" or "direction", for ridge.
        held_out: share of the documents that λ is chosen on.
        seed: of the held-out split.
        info: further facts to keep with the maps.
        spectra: by source block what depends on it alone, as an earlier fit on the same rows with the same split,
            seed, centring and shares left it here, whatever its estimator and target blocks; filled by this one.

    Raises:
        FitError: unknown estimator, or too few rows.
        StateError: states that are not finite or do not pair up.
    """
    if estimator not in MAP_ESTIMATORS:
        raise FitError(f"No map estimator is called {estimator!r}; there are {', '.join(MAP_ESTIMATORS)}.")
    if lambda_select not in LAMBDA_SELECT or (lambda_select != "r2" and estimator != "ridge"):
        raise FitError(f"lambda_select is one of {', '.join(LAMBDA_SELECT)}, the second for ridge only.")
    settings = {"held_out": held_out, "seed": seed, "center": center, "lambda_select": lambda_select}
    rows = Rows(documents, held_out, seed, kinds, share)
    norms = {lt: _median_norm(y) for lt, y in target_states.items()}
    spreads = {lt: _spread(y) for lt, y in target_states.items()}, {ls: _spread(x) for ls, x in source_states.items()}
    spectra = {} if spectra is None else spectra
    for ls in source_states:
        spectra.setdefault(ls, {})
    maps = {}
    for pair, paired in paired_blocks(source_states, target_states, rows, center, spectra, exact=estimator in EXACT):
        ls, lt = pair
        fit = ridge(paired, lambda_select=lambda_select) if estimator == "ridge" else MAP_ESTIMATORS[estimator](paired)
        made = _map(pair, fit, paired.whole, norms[lt], estimator, {**info, **settings})
        # fixed effects leave the kinds' own differences out of the moments, but a residual stream's spread has them
        maps[pair] = replace(made, source_spread=spreads[1][ls], target_spread=spreads[0][lt])
    _warn_of_few(source, target, len(documents))
    return MapSet(source, target, maps)


def _map(
    pair: tuple[int, int],
    fit: Fit,
    whole: Moments,
    norm: float,
    estimator: str,
    info: Mapping[str, object],
) -> AffineMap:
    if not bool(torch.isfinite(fit.weight).all()):
        raise StateError(
            f"The {estimator} map from block {pair[0]} to block {pair[1]} is not finite; check the states."
        )
    return AffineMap(
        source_block=pair[0],
        target_block=pair[1],
        weight=fit.weight.float(),
        bias=fit.bias.float(),
        source_mean=whole.mean_x.float(),
        target_mean=whole.mean_y.float(),
        retained=fit.retained.float(),
        source_spread=float((whole.sxx.trace() / whole.n).sqrt()),
        target_spread=(whole.syy / whole.n) ** 0.5,
        target_norm=norm,
        estimator=estimator,
        info={**info, **fit.info},
    )


def _median_norm(states: torch.Tensor) -> float:
    return float(torch.cat([rows.double().norm(dim=1) for rows in states.split(BLOCK_ROWS)]).median())


def _spread(states: torch.Tensor) -> float:
    """√tr Cov, float64 by blocks of rows: a copy of wide states would be as large as two of them."""
    blocks = states.split(BLOCK_ROWS)
    mean = torch.stack([rows.double().sum(0) for rows in blocks]).sum(0) / len(states)
    return (sum(float((rows.double() - mean).square_().sum()) for rows in blocks) / len(states)) ** 0.5


def _warn_of_few(source: ModelRecord, target: ModelRecord, n: int) -> None:
    ds = source.hidden_size
    if n < 2 * ds:
        log.warning(
            "%s → %s: %d rows for %d dimensions; give at least %d (better %d).",
            source.name,
            target.name,
            n,
            ds,
            2 * ds,
            10 * ds,
        )

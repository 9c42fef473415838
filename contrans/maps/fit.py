"""Fitting maps: the same texts through both models, and an estimator on the paired states."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch

from contrans.concepts.contrast import ContrastSet
from contrans.errors import FitError, StateError
from contrans.maps.affine import AffineMap, MapSet
from contrans.maps.corpora import Corpus, check_circularity
from contrans.maps.depth import SOURCE_DEPTH, TARGET_DEPTH, block_at
from contrans.maps.estimators import MAP_ESTIMATORS
from contrans.maps.paired import PairedStates
from contrans.models import Model, ModelRecord
from contrans.states.capturing import Progress, capture

log = logging.getLogger(__name__)


def fit_map(
    source: Model,
    target: Model,
    texts: Corpus,
    *,
    source_blocks: Sequence[int] | None = None,
    target_blocks: Sequence[int] | None = None,
    estimator: str = "ridge",
    judged_by: Iterable[ContrastSet] = (),
    held_out: float = 0.2,
    seed: int = 0,
    precision: str = "float32",
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> MapSet:
    """Fits affine maps from the source's hidden space to the target's, on the last tokens of the same texts.

    Source: Dong et al. 2024 (arXiv 2405.13578), §3.2, with centring, a bias and ridge regularisation.

    Args:
        source: the model that concepts come from.
        target: the model that they go to.
        texts: a corpus; wrapping part of it in the concept's template is what matters most.
        source_blocks: blocks of the source, a map from each; the one at depth .9 if None.
        target_blocks: blocks of the target, a map to each; the one at depth .78 if None.
        estimator: a key of `contrans.maps.estimators.MAP_ESTIMATORS`.
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
        FitError: unknown estimator, too few texts.
        BlockError, TextError, StateError: as `capture` raises them.
    """
    for contrast in judged_by:
        check_circularity(texts.texts, contrast.texts)
    source_blocks = [block_at(SOURCE_DEPTH, source.n_blocks)] if source_blocks is None else source_blocks
    target_blocks = [block_at(TARGET_DEPTH, target.n_blocks)] if target_blocks is None else target_blocks
    of_source = capture(
        source,
        texts.texts,
        blocks=source_blocks,
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
        held_out=held_out,
        seed=seed,
        info={"corpus": texts.name, "texts": texts.hash, "precision": precision},
    )


def fit_states(
    source_states: Mapping[int, torch.Tensor],
    target_states: Mapping[int, torch.Tensor],
    *,
    documents: Sequence[str],
    source: ModelRecord,
    target: ModelRecord,
    estimator: str = "ridge",
    held_out: float = 0.2,
    seed: int = 0,
    info: Mapping[str, object] = {},
) -> MapSet:
    """Fits maps on states that were captured before, for every pair of a source and a target block.

    Args:
        source_states: per block [n, ds].
        target_states: per block [n, dt], row i from the same text as row i of the source.
        documents: the document of each row.
        source: whose states the first are.
        target: whose states the second are.
        estimator: a key of `contrans.maps.estimators.MAP_ESTIMATORS`.
        held_out: share of the documents that λ is chosen on.
        seed: of the held-out split.
        info: further facts to keep with the maps.

    Raises:
        FitError: unknown estimator, or too few rows.
        StateError: states that are not finite or do not pair up.
    """
    if estimator not in MAP_ESTIMATORS:
        raise FitError(f"No map estimator is called {estimator!r}; there are {', '.join(MAP_ESTIMATORS)}.")
    maps = {}
    for ls, x in source_states.items():
        for lt, y in target_states.items():
            paired = PairedStates(x, y, documents, held_out, seed)
            fit = MAP_ESTIMATORS[estimator](paired)
            whole = paired.train.merge(paired.held)
            if not bool(torch.isfinite(fit.weight).all()):
                raise StateError(f"The {estimator} map from block {ls} to block {lt} is not finite; check the states.")
            maps[ls, lt] = AffineMap(
                source_block=ls,
                target_block=lt,
                weight=fit.weight.float(),
                bias=fit.bias.float(),
                source_mean=whole.mean_x.float(),
                target_mean=whole.mean_y.float(),
                retained=fit.retained.float(),
                source_spread=float((whole.sxx.trace() / whole.n).sqrt()),
                target_spread=(whole.syy / whole.n) ** 0.5,
                target_norm=float(y.double().norm(dim=1).median()),
                estimator=estimator,
                info={**info, **fit.info, "held_out": held_out, "seed": seed},
            )
    n, ds = len(documents), source.hidden_size
    if n < 2 * ds:
        log.warning(
            "%s → %s: %d rows for %d dimensions; give at least %d (better %d) texts.",
            source.name,
            target.name,
            n,
            ds,
            2 * ds,
            10 * ds,
        )
    return MapSet(source, target, maps)

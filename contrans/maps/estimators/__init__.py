"""Ways to fit an affine map, one file each: functions from paired rows to a weight and a bias."""

from collections.abc import Callable

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.identity import identity
from contrans.maps.estimators.lstsq import lstsq
from contrans.maps.estimators.paper import paper
from contrans.maps.estimators.pcr import pcr
from contrans.maps.estimators.procrustes import procrustes
from contrans.maps.estimators.reduced_rank import reduced_rank
from contrans.maps.estimators.ridge import ridge, ridge_moments
from contrans.maps.estimators.shuffled import shuffled
from contrans.maps.estimators.whitened import whitened
from contrans.maps.paired import PairedStates
from contrans.maps.splits import SplitMoments

MapEstimator = Callable[[PairedStates], Fit]
MAP_ESTIMATORS: dict[str, MapEstimator] = {
    "ridge": ridge,
    "paper": paper,
    "lstsq": lstsq,
    "pcr": pcr,
    "procrustes": procrustes,
    "reduced_rank": reduced_rank,
    "whitened": whitened,
    "shuffled": shuffled,
    "identity": identity,
}

MOMENT_ESTIMATORS: dict[str, Callable[[SplitMoments], Fit]] = {
    "ridge": ridge_moments,
    "lstsq": lstsq,
    "pcr": pcr,
    "procrustes": procrustes,
    "reduced_rank": reduced_rank,
}
"""Estimators that need moments alone, so that rows can be streamed."""

__all__ = [
    "MAP_ESTIMATORS",
    "MOMENT_ESTIMATORS",
    "Fit",
    "MapEstimator",
    "identity",
    "lstsq",
    "paper",
    "pcr",
    "procrustes",
    "reduced_rank",
    "ridge",
    "shuffled",
    "whitened",
]

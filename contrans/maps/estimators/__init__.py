"""Ways to fit an affine map, one file each: functions from paired rows to a weight and a bias."""

from collections.abc import Callable

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.identity import identity
from contrans.maps.estimators.paper import paper
from contrans.maps.estimators.ridge import ridge
from contrans.maps.estimators.shuffled import shuffled
from contrans.maps.paired import PairedStates

MapEstimator = Callable[[PairedStates], Fit]
MAP_ESTIMATORS: dict[str, MapEstimator] = {
    "ridge": ridge,
    "paper": paper,
    "shuffled": shuffled,
    "identity": identity,
}

__all__ = ["MAP_ESTIMATORS", "Fit", "MapEstimator", "identity", "paper", "ridge", "shuffled"]

"""Ordinary least squares with a bias: ridge without its penalty."""

from contrans.maps.estimators.fit import Fit
from contrans.maps.estimators.spectral import check_rows, filtered, held_out_scores, inverse
from contrans.maps.splits import SplitMoments


def lstsq(paired: SplitMoments) -> Fit:
    """W = C⁺ D, b = ȳ − x̄ W: centred least squares of minimal norm.

    Near n = ds it interpolates and its error peaks (Belkin et al. 2019, arXiv 1812.11118); ridge does not.

    Raises:
        FitError: fewer than 10 rows, or states that do not vary.
    """
    check_rows(paired)
    r2 = held_out_scores(paired, [inverse(paired.spectrum("train")[0])])
    return filtered(
        paired, inverse(paired.spectrum("whole")[0]), {"lambda": 0.0, "rho": 0.0, "heldout_r2": float(r2[0])}
    )

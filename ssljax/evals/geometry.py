"""How features lie: how many directions they use, how evenly they are spread, and whether views of one example agree.

None of it needs labels. All take NumPy arrays and compute in float64.
"""

import numpy as np
import scipy

from ssljax.evals.retrieval import unit

MOST_PAIRED = 2000
"""Of so many examples, the first ones, all pairs are compared."""


def singular_values(x: np.ndarray) -> np.ndarray:
    """Of features (examples, dim) as they are, descending: (min(examples, dim),).

    By the eigenvalues of the smaller Gram matrix, so that those below 1e-8 of the largest are rounding.
    """
    x = x.astype(np.float64)
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))


def rankme(x: np.ndarray) -> float:
    """exp(-Σ p log p) with p = σ / Σσ + 1e-7 over the singular values σ of features (examples, dim): a smooth rank,
    between 1 and min(examples, dim).

    Garrido et al., "RankMe", 2023, equation 1.
    """
    return _smooth_rank(singular_values(x), 1e-7)


def feature_std(x: np.ndarray) -> float:
    """√dim · the mean over dimensions of the standard deviation of features (examples, dim) of length 1: 1 where they
    fill the sphere evenly, 0 where all are the same point."""
    return float(unit(x.astype(np.float64)).std(axis=0).mean() * np.sqrt(x.shape[1]))


def uniformity(x: np.ndarray) -> float:
    """log of the mean of exp(-2 |a - b|²) over pairs of different examples, of length 1: 0 where all are the same
    point, lower where they are spread more evenly, -4 or so on a sphere of many dimensions.

    x (examples, dim), of which the first MOST_PAIRED count. Wang and Isola, 2020, section 4.1.2, with t = 2.
    """
    squares = scipy.spatial.distance.pdist(unit(x[:MOST_PAIRED].astype(np.float64)), "sqeuclidean")
    return float(np.log(np.exp(-2.0 * squares).mean()))


def alignment(views: np.ndarray) -> float:
    """Mean of |a - b|² over pairs of views of an example, of length 1: 0 where they are the same, 2 where they have
    nothing to do with each other.

    views (examples, views, dim), two views at least. Wang and Isola, 2020, section 4.1.1, with α = 2.
    """
    views, count = unit(views.astype(np.float64)), views.shape[1]
    # The mean over ordered pairs of different views: Σᵢⱼ |vᵢ - vⱼ|² = 2 q Σ |vᵢ|² - 2 |Σ vᵢ|².
    sums = 2 * count * np.square(views).sum(axis=(1, 2)) - 2 * np.square(views.sum(axis=1)).sum(axis=1)
    return float(sums.mean() / (count * (count - 1)))


def lidar(views: np.ndarray) -> float:
    """exp(-Σ p log p) with p = λ / Σλ + 1e-8 over the eigenvalues λ of Σ_w^-½ Σ_b Σ_w^-½: the rank of what tells
    examples apart beyond what their views differ by.

    views (examples, views, dim), two views at least. Σ_b is the covariance of the examples' means, Σ_w the mean
    covariance of their views, each plus 1e-4 on the diagonal. It is at most the number of examples - 1. Thilak et al.,
    "LiDAR", 2024, section 3.2.
    """
    views = views.astype(np.float64)
    means = views.mean(axis=1)
    centred, apart = means - means.mean(axis=0), (views - means[:, None]).reshape(-1, views.shape[-1])
    between = centred.T @ centred / (len(means) - 1)
    within = apart.T @ apart / (len(means) * (views.shape[1] - 1)) + 1e-4 * np.eye(views.shape[-1])
    return _smooth_rank(np.maximum(scipy.linalg.eigh(between, within, eigvals_only=True), 0.0), 1e-8)


def _smooth_rank(values: np.ndarray, epsilon: float) -> float:
    p = values / max(values.sum(), 1e-30) + epsilon
    return float(np.exp(-(p * np.log(p)).sum()))

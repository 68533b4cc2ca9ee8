"""How well the patches of a Vision Transformer tell what is where in an image, with no label learnt from."""

from functools import partial

import numpy as np
import scipy

from ssljax.evals.patches import held

IGNORED = 255
"""In a mask: what counts for nothing, such as borders; 0 is the background."""
STARTS, SAMPLES = 4, 1000
"""Of k-means, and of the bootstrap."""


def jaccard(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """|found ∩ object| / |found ∪ object| of each image: found bool, truth int, both (images, height, width); the
    object is all that is neither background nor IGNORED."""
    counts, things = truth != IGNORED, (truth != 0) & (truth != IGNORED)
    both = (found & things).sum(axis=(1, 2))
    either = ((found & counts) | things).sum(axis=(1, 2))
    return both / np.maximum(either, 1)


def of_attention(attention: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """Jaccard index of the object and of what holds 60 % of a head's attention, of the head with the best mean, and
    the mean of all heads. attention: (images, heads, patches), of square patches; truth: (images, height, width).

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2021, figure 4.
    """
    of_heads = np.stack([jaccard(painted(mask, truth.shape), truth) for mask in np.moveaxis(held(attention), 1, 0)])
    best = of_heads[np.argmax(of_heads.mean(axis=1))]
    named = {"Jaccard, best head": best, "Jaccard, all heads": of_heads.mean(axis=0)}
    return {
        name: {"value": float(x.mean()), "standard_error": float(x.std() / np.sqrt(len(x)))}
        for name, x in named.items()
    }


def of_clusters(tokens: np.ndarray, truth: np.ndarray, *, seed: int = 0) -> dict[str, dict[str, float]]:
    """Mean intersection over union, and share of the pixels, where patches are clustered by k-means into as many as
    there are classes, and each cluster is called by the class that makes most pixels right, one to one (Kuhn, 1955).

    tokens: (images, patches, dim). Standard errors are of bootstrap samples of images, with the same clusters.
    """
    from sklearn.cluster import KMeans

    rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
    classes = np.unique(truth[truth != IGNORED])
    if len(classes) < 2:
        raise ValueError(
            f"the masks hold only {classes.tolist() or 'what is ignored'}: there is nothing to tell apart."
        )
    made = KMeans(len(classes), n_init=STARTS, random_state=seed).fit_predict(rows).reshape(tokens.shape[:2])
    clusters = painted(made, truth.shape)
    confusion = np.stack(
        [[((clusters == k) & (truth == c)).sum(axis=(1, 2)) for c in classes] for k in range(len(classes))]
    ).transpose(2, 0, 1)
    named = scipy.optimize.linear_sum_assignment(confusion.sum(axis=0), maximize=True)[1]
    right = np.take_along_axis(confusion, named[None, :, None], axis=2)[..., 0]
    of_cluster, of_class = confusion.sum(axis=2), np.take_along_axis(confusion.sum(axis=1), named[None], axis=1)

    def scores(images: np.ndarray) -> tuple[float, float]:
        r, k, c = (x[images].sum(axis=0) for x in (right, of_cluster, of_class))
        there = c > 0
        return float((r / np.maximum(k + c - r, 1))[there].mean()), float(r.sum() / c.sum())

    random = np.random.default_rng(seed)
    drawn = np.array([scores(random.integers(len(truth), size=len(truth))) for _ in range(SAMPLES)])
    reached = scores(np.arange(len(truth)))
    values = zip(("mIoU of clusters", "pixels of clusters"), reached, drawn.std(axis=0), strict=True)
    return {name: {"value": value, "standard_error": float(spread)} for name, value, spread in values}


def painted(of_patches: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(images, patches) -> (images, height, width), of square images of so many square patches."""
    side = round(of_patches.shape[1] ** 0.5)
    grid = of_patches.reshape(-1, side, side)
    grow = partial(np.repeat, repeats=shape[1] // side)
    return grow(grow(grid, axis=1), axis=2)

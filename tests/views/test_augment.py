"""What is random in a view, by its distribution; and that a draw depends on the example's key and on nothing else."""

from functools import partial
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from scipy import stats

from ssljax.collectives import example_keys
from ssljax.views import images as ops
from ssljax.views.images import Augment
from ssljax.views.recipes import make_views

close = np.testing.assert_allclose
PICTURES = np.random.RandomState(0).randint(0, 256, (8, 20, 20, 3), np.uint8)


def keys(n):
    return example_keys(jax.random.key(0), n)


def is_uniform(sample, low, high):
    """Not told from U(low, high) by Kolmogorov and Smirnov at a level of one in a thousand, on fixed seeds."""
    return stats.kstest(sample, "uniform", (low, high - low)).pvalue > 1e-3


def rate_is(events, probability):
    """Within four standard errors."""
    return abs(np.mean(events) - probability) < 4 * np.sqrt(probability * (1 - probability) / len(events))


# Crops ----------------------------------------------------------------------------------------------------------------


def boxes(height, width, scale, n=2000):
    draw = jax.jit(partial(ops.random_crop_boxes, scale=scale))
    drawn = draw(keys(n), jnp.tile(jnp.array([height, width]), (n, 1)))
    return np.asarray(drawn, np.float64).T


def test_crop_area_ratio_and_place_have_torchvisions_distributions():
    """On an image that any crop of the scale fits into, so that the first try counts."""
    side = 10_000  # pixels, so that rounding to whole ones is small
    top, left, height, width = boxes(side, side, (0.08, 0.5))
    assert is_uniform(height * width / side**2, 0.08, 0.5)
    assert is_uniform(np.log(width / height), np.log(3 / 4), np.log(4 / 3))
    assert is_uniform(top / (side - height), 0, 1) and is_uniform(left / (side - width), 0, 1)
    assert abs(stats.spearmanr(top / (side - height), left / (side - width)).statistic) < 4 / np.sqrt(2000)


@pytest.mark.parametrize("height, width", [(32, 32), (40, 24), (17, 90)])
def test_crops_are_whole_pixels_inside_the_image(height, width):
    top, left, h, w = boxes(height, width, (0.08, 1.0))
    for x in (top, left, h, w):
        np.testing.assert_array_equal(x, np.round(x))
    assert (h >= 1).all() and (w >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    assert ((top > 0) & (top + h == height)).any() and ((left > 0) & (left + w == width)).any()  # the last place too


@pytest.mark.parametrize(
    "height, width, expected", [(100, 10, (43, 0, 13, 10)), (10, 100, (0, 43, 10, 13)), (30, 30, (0, 0, 30, 30))]
)
def test_where_no_try_fits_the_largest_central_crop_is_taken(height, width, expected):
    """An area of twice the image never fits; the fallback is torchvision's, worked by hand."""
    np.testing.assert_array_equal(boxes(height, width, (2.0, 2.0), n=5), np.tile(np.array(expected)[:, None], 5))


def test_crops_of_a_resized_picture_are_of_the_same_region():
    """In fractions of the picture, boxes on a canvas are those on the original."""
    sizes = jnp.array([[48, 32]] * 50)
    original = ops.random_crop_boxes(keys(50), sizes, (0.08, 1.0))
    canvas = jnp.zeros((50, 64, 64, 3))
    close(ops.on_canvas(original, sizes, canvas) / 64, original / jnp.array([48, 32, 48, 32]), rtol=1e-6)


def ramp(height, width):
    """Red grows to the right and green downwards, so that a colour tells its place (in fractions of the picture)."""
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.float32)


def test_views_of_a_resized_picture_show_the_same_region():
    """To within half a pixel of the original, by which the two interpolations differ at the border of a crop."""
    view, n = jax.jit(Augment(8, (0.2, 1.0), "bilinear")), 50
    original = view(keys(n), {"image": jnp.tile(ramp(48, 32), (n, 1, 1, 1))})
    batch = {"image": jnp.tile(ramp(64, 64), (n, 1, 1, 1)), "size": jnp.tile(jnp.array([48, 32]), (n, 1))}
    on_canvas = view(keys(n), batch)
    close(on_canvas, original, atol=0.5 / 32)
    unaware = view(keys(n), {"image": batch["image"]})
    assert jnp.abs(unaware - original).max() > 0.1


# Probabilities --------------------------------------------------------------------------------------------------------


WHOLE = {"size": 20, "scale": (1.0, 1.0), "interpolation": "bilinear"}  # the only crop that fits a square is all of it


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"flip": 0.3}, lambda x: x[:, ::-1]),
        ({"flip": 0.0, "grey": 0.2}, lambda x: (x @ [0.2989, 0.587, 0.114])[..., None]),
        ({"flip": 0.0, "solarize": 0.2}, lambda x: np.where(x >= 0.5, 1 - x, x)),
    ],
    ids=["flip", "grey", "solarize"],
)
def test_operation_happens_with_its_probability(fields, expected):
    """The view is the picture, or the picture changed, and in the right proportion."""
    n = 2000
    picture = PICTURES[0].astype(np.float32) / 255
    views = np.asarray(jax.jit(Augment(**WHOLE, **fields))(keys(n), {"image": jnp.tile(PICTURES[:1], (n, 1, 1, 1))}))
    changed = np.abs(views - expected(picture)).max(axis=(1, 2, 3)) < 1e-4
    same = np.abs(views - picture).max(axis=(1, 2, 3)) < 1e-4
    assert (changed ^ same).all()
    assert rate_is(changed, max(fields.values()))


@pytest.mark.parametrize("fields", [{"jitter": 0.8, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}, {"blur": 0.4}])
def test_random_operation_happens_with_its_probability(fields):
    n = 2000
    picture = PICTURES[0].astype(np.float32) / 255
    augment = Augment(**WHOLE, flip=0.0, sigma=(1.0, 2.0), **fields)
    views = np.asarray(jax.jit(augment)(keys(n), {"image": jnp.tile(PICTURES[:1], (n, 1, 1, 1))}))
    assert rate_is(np.abs(views - picture).max(axis=(1, 2, 3)) > 1e-4, next(iter(fields.values())))


# Colour jitter --------------------------------------------------------------------------------------------------------


N = 3000
STRENGTHS = {"brightness": 0.8, "contrast": 0.8, "saturation": 1.5, "hue": 0.15}
jitter = jax.jit(ops.color_jitter)


def tiled(picture):
    """As planes."""
    return ops.as_planes(jnp.broadcast_to(jnp.asarray(picture, jnp.float32), (N, 6, 6, 3)))


@pytest.fixture(scope="module")
def factors():
    """Each operation's factor for each key, read from what it does alone, to colours that it does not make clip."""
    alone = {name: {other: STRENGTHS[name] if other == name else 0.0 for other in STRENGTHS} for name in STRENGTHS}
    dull = tiled([0.1, 0.2, 0.1]).at[:, 1, :, ::2].set(0.1)
    grey = ops.greyscale(dull)
    mean = jnp.broadcast_to(grey.mean((1, 2, 3), keepdims=True), grey.shape)
    read = {}
    for name, other in (("brightness", jnp.zeros_like(grey)), ("contrast", mean), ("saturation", grey)):
        jittered = jitter(keys(N), dull, **alone[name])
        read[name] = ((jittered - other) / (dull - other))[:, 1, 0, 1]
    red = jitter(keys(N), tiled([0.5, 0.0, 0.0]), **alone["hue"])[:, :, 0, 0]
    read["hue"] = (red[:, 1] - red[:, 2]) / red[:, 0] / 6  # red stays the largest: less than a sixth of the circle
    return read


def test_jitter_factors_are_uniform_in_their_ranges_and_independent(factors):
    ranges = {"brightness": (0.2, 1.8), "contrast": (0.2, 1.8), "saturation": (0.0, 2.5), "hue": (-0.15, 0.15)}
    for name, (low, high) in ranges.items():  # a strength over 1 does not make negative factors
        assert is_uniform(factors[name], low, high), name
    correlations = stats.spearmanr(np.stack(list(factors.values()), axis=1)).statistic
    assert np.abs(correlations - np.eye(4)).max() < 4 / np.sqrt(N)


def test_jitter_order_is_uniform_over_all_permutations(factors):
    """With the factors known, the result tells the order, or a few orders between which clipping made no difference.

    Where k orders agree with what happened, each of them is given 1/k: were all 24 equally likely, each would be given
    1/24 on average, whatever the draws made of the rest.
    """
    picture = tiled(np.random.RandomState(3).uniform(size=(6, 6, 3)))
    result = np.asarray(jitter(keys(N), picture, **STRENGTHS))
    operations = {name: jax.jit(getattr(ops, "shift_hue" if name == "hue" else name)) for name in STRENGTHS}
    agrees = []
    for order in permutations(STRENGTHS):
        images = picture
        for name in order:
            images = operations[name](images, factors[name])
        agrees.append(np.abs(images - result).max(axis=(1, 2, 3)) < 1e-4)
    agrees = np.stack(agrees, axis=1)
    assert agrees.any(axis=1).all()
    assert agrees.sum(axis=1).mean() < 6
    given = agrees / agrees.sum(axis=1, keepdims=True)
    assert (np.abs(given.mean(axis=0) - 1 / 24) < 4 * given.std(axis=0) / np.sqrt(N)).all()


# Keys -----------------------------------------------------------------------------------------------------------------


def test_a_view_depends_on_its_examples_key_alone():
    """BYOL's second view uses every operation there is."""
    augment = jax.jit(make_views("byol", size=20)[1])
    whole = augment(keys(8), {"image": PICTURES})
    halves = [augment(keys(8)[half], {"image": PICTURES[half]}) for half in (slice(0, 4), slice(4, 8))]
    close(np.concatenate(halves), whole, rtol=1e-5, atol=1e-5)


def test_views_are_the_same_on_four_shards(spread):
    augment = make_views("moco_v2", size=20)[0]

    def on_a_shard(pictures):
        return augment(example_keys(jax.random.key(0), len(pictures), "data"), {"image": pictures})

    whole = jax.jit(augment)(keys(8), {"image": PICTURES})
    close(spread(on_a_shard, 4, P("data"))(PICTURES), whole, rtol=1e-5, atol=1e-5)


def test_views_of_an_example_differ_and_so_do_examples_that_look_alike():
    same = {"image": np.tile(PICTURES[:1], (2, 1, 1, 1))}
    first, second = jax.jit(lambda: ops.draw_views((Augment(16), Augment(16)), keys(2), same))()
    assert jnp.abs(first - second).max(axis=(1, 2, 3)).min() > 0.1
    assert jnp.abs(first[0] - first[1]).max() > 0.1


# Recipes --------------------------------------------------------------------------------------------------------------


CROP_AND_FLIP = {"scale": (0.08, 1.0), "interpolation": "bicubic", "flip": 0.5}
COLOUR = {"jitter": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grey": 0.2}
BLUR = {"blur": 0.5, "sigma": (0.1, 2.0), "solarize": 0.0}
STRONG = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
UNCHANGED = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
BYOL = CROP_AND_FLIP | COLOUR | {"saturation": 0.2} | IMAGENET


@pytest.mark.parametrize(
    "name, fields, papers",
    [
        ("simclr", {}, 2 * [CROP_AND_FLIP | COLOUR | STRONG | BLUR | UNCHANGED]),
        (
            "simclr",
            {"size": 32, "strength": 0.5, "blur": 0.0},
            2 * [CROP_AND_FLIP | COLOUR | {"size": 32, "blur": 0.0}],
        ),
        (
            "moco_v2",
            {},
            2 * [COLOUR | BLUR | {"scale": (0.2, 1.0), "interpolation": "bilinear", "flip": 0.5} | IMAGENET],
        ),
        ("byol", {}, [BYOL | BLUR | {"blur": 1.0}, BYOL | BLUR | {"blur": 0.1, "solarize": 0.2}]),
        (
            "mae",
            {},
            [CROP_AND_FLIP | {"scale": (0.2, 1.0), "jitter": 0, "grey": 0, "blur": 0, "solarize": 0} | IMAGENET],
        ),
    ],
)
def test_recipes_have_the_papers_numbers(name, fields, papers):
    """A library once lost six points of MoCo v2 to numbers that were not the paper's."""
    views = make_views(name, **fields)
    assert [{key: getattr(view, key) for key in paper} for view, paper in zip(views, papers, strict=True)] == papers


def test_views_are_normalised_floats_of_the_asked_size():
    plain = jax.jit(Augment(12, flip=0.0))(keys(8), {"image": PICTURES})
    assert plain.shape == (8, 12, 12, 3) and plain.dtype == jnp.float32
    normalised = jax.jit(Augment(12, flip=0.0, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)))(keys(8), {"image": PICTURES})
    close(normalised, (plain - np.array([0.1, 0.2, 0.3])) / np.array([0.5, 0.6, 0.7]), atol=1e-6)


def test_center_view_is_the_central_square_of_the_original():
    batch = {"image": jnp.asarray(ramp(64, 64))[None], "size": jnp.array([[48, 32]])}
    view = ops.center_view(batch, 16, 0.5, (0.0,) * 3, (1.0,) * 3)[0]
    # Half of the short side, 16 pixels: x from 1/4 to 3/4, y from 1/3 to 2/3.
    close(view[8, :, 0], 0.25 + 0.5 * (np.arange(16) + 0.5) / 16, atol=0.01)
    close(view[:, 8, 1], 1 / 3 + 1 / 3 * (np.arange(16) + 0.5) / 16, atol=0.01)


def test_an_unknown_recipe_or_number_is_refused():
    with pytest.raises(ValueError, match="views 'jigsaw' are unknown; use one of npid, simclr, .*, mae, .*ijepa"):
        make_views("jigsaw")
    with pytest.raises(ValueError, match="views 'mae' .*'strength'"):
        make_views("mae", strength=1.0)


def test_one_key_and_bare_images_will_do_in_a_notebook():
    images = np.random.RandomState(0).randint(0, 255, (3, 12, 12, 3), np.uint8)
    for name in ("byol", "mae"):
        for view in ops.draw_views(make_views(name, size=16), jax.random.key(0), images):
            assert view.shape == (3, 16, 16, 3)
    (mae,) = make_views("mae", size=16)
    one, each = jax.random.key(0), example_keys(jax.random.key(0), 3)
    np.testing.assert_array_equal(mae(one, images), mae(each, {"image": images}))
    with pytest.raises(ValueError, match="images must be uint8, or floats"):
        mae(one, images.astype(np.int32))


@pytest.mark.parametrize(
    "fields",
    [
        {"scale": 0.2},
        {"scale": (0.5, 0.2)},
        {"interpolation": "nearest"},
        {"hue": 0.9},
        {"flip": 2},
        {"size": 0},
        {"sigma": (0.0, 0.0)},
        {"sigma": (2.0, 0.1)},
        {"sigma": 1.0},
        {"brightness": float("nan")},
        {"std": (0.2, float("nan"), 0.2)},
    ],
)
def test_impossible_numbers_are_refused(fields):
    with pytest.raises(ValueError, match=f"views.{min(fields)}"):
        Augment(**{"size": 8, **fields})

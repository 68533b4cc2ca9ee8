"""Views of several sizes: the papers' recipes, drawn once for all equal crops, of colour and of grey images."""

import inspect
from dataclasses import asdict, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image

from ssljax.collectives import example_keys
from ssljax.config import base_config
from ssljax.data.sources import open_source
from ssljax.fields import set_fields
from ssljax.views import images as ops
from ssljax.views import recipes
from ssljax.views.images import Augment, draw_views, show_views
from ssljax.views.recipes import RECIPES, make_views

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
PICTURES = np.random.RandomState(0).randint(0, 256, (4, 20, 20, 3), np.uint8)


def keys(n):
    return example_keys(jax.random.key(0), n)


# Recipes --------------------------------------------------------------------------------------------------------------


PLAIN = asdict(Augment(224)) | {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
NPID = PLAIN | {
    "scale": (0.2, 1.0),
    "interpolation": "bilinear",
    "jitter": 1.0,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.4,
    "grey": 0.2,
    "grey_first": True,
}
FIRST = PLAIN | {
    "jitter": 0.8,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "grey": 0.2,
    "blur": 1.0,
    "sigma": (0.1, 2.0),
}
SECOND = FIRST | {"blur": 0.1, "solarize": 0.2}
MOCO_V3 = {"scale": (0.2, 1.0), "interpolation": "bilinear"}
SWAV = PLAIN | {
    "scale": (0.14, 1.0),
    "interpolation": "bilinear",
    "jitter": 0.8,
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "grey": 0.2,
    "blur": 0.5,
    "sigma": (0.1, 2.0),
    "window": 13,
}


def multi_crop(scale, local_scale, local_crops, **fields):
    views = [view | {"scale": scale} | fields for view in (FIRST, SECOND)]
    return views + local_crops * [views[0] | {"size": 96, "scale": local_scale, "blur": 0.5}]


@pytest.mark.parametrize(
    "name, fields, papers",
    [
        ("npid", {}, [NPID]),
        ("npid", {"size": 32, "flip": 0.0}, [NPID | {"size": 32, "flip": 0.0}]),
        ("moco_v1", {}, [NPID, NPID]),
        ("moco_v3", {}, [FIRST | MOCO_V3, SECOND | MOCO_V3]),
        ("moco_v3", {"scale": (0.08, 1.0)}, [v | MOCO_V3 | {"scale": (0.08, 1.0)} for v in (FIRST, SECOND)]),
        ("swav", {}, 2 * [SWAV] + 6 * [SWAV | {"size": 96, "scale": (0.05, 0.14)}]),
        ("dino", {}, multi_crop((0.4, 1.0), (0.05, 0.4), 8, window=13)),
        ("ibot", {}, multi_crop((0.25, 1.0), (0.05, 0.25), 10, window=13)),
        ("dinov2", {}, multi_crop((0.32, 1.0), (0.05, 0.32), 8, window=9)),
        ("data2vec", {}, [PLAIN | {"jitter": 1.0, "hue": 0.0}]),
        ("ijepa", {}, [PLAIN | {"scale": (0.3, 1.0), "interpolation": "bilinear", "flip": 0.0}]),
    ],
)
def test_recipes_have_the_papers_numbers(name, fields, papers):
    """All of them: a library once lost six points of MoCo v2 to numbers that were not the paper's."""
    assert [asdict(view) for view in make_views(name, **fields)] == papers


def test_dinov2s_official_code_blurs_with_the_opposite_probability():
    """facebookresearch/dinov3#286: torchvision's probability is that of applying, theirs was that of not."""
    meant, official = (make_views("dinov2", local_crops=1, inverted_blur=inverted) for inverted in (False, True))
    assert [view.blur for view in meant] == [1.0, 0.1, 0.5] and [view.blur for view in official] == [0.0, 0.9, 0.5]


def test_any_number_of_local_crops_of_any_size():
    for crops in (0, 3):
        views = make_views("dino", size=32, local_crops=crops, local_size=16, local_scale=(0.1, 0.2))
        assert [view.size for view in views] == [32, 32] + crops * [16]
        assert all(view.scale == (0.1, 0.2) for view in views[2:])
    assert {view.std for view in make_views("swav", std=(0.228, 0.224, 0.225))} == {(0.228, 0.224, 0.225)}
    with pytest.raises(ValueError, match=r"views.local_crops -1 must be a number of crops"):
        make_views("ibot", local_crops=-1)
    with pytest.raises(ValueError, match=r"views.local_scale \(0.9, 0.1\) must be \(smallest, largest\) share"):
        make_views("dino", local_scale=(0.9, 0.1))
    with pytest.raises(ValueError, match=r"have no field 'local_crops'.*by --config.views.local_crops=None\."):
        make_views("simclr", local_crops=2)


def test_a_name_means_one_thing_in_all_recipes():
    """A config has one field for each name, whichever recipe is named later."""
    kinds: dict[str, set] = {}
    for recipe in [*RECIPES.values(), Augment]:
        for name, p in inspect.signature(recipe).parameters.items():
            kinds.setdefault(name, set()).add(type(p.default) if p.default is not p.empty else p.annotation)
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}
    config = base_config("simclr")
    config.views.update(
        name="dinov2", size=28, local_crops=3, local_size=14, local_scale=(0.1, 0.2), inverted_blur=True
    )
    assert [view.size for view in make_views(**set_fields(config.views))] == [28, 28, 14, 14, 14]


# Drawing --------------------------------------------------------------------------------------------------------------


GLOBAL, LOCAL = Augment(16), Augment(8, (0.05, 0.4))
CROPS = (GLOBAL, replace(GLOBAL, solarize=0.5), LOCAL, LOCAL, LOCAL)


@pytest.fixture(scope="module")
def views():
    return jax.jit(partial(draw_views, CROPS))(keys(4), {"image": PICTURES})


def test_views_are_what_each_augmentation_draws_by_itself(views):
    """With the keys that belong to its place, whichever others are drawn with it."""
    alone = {augment: jax.jit(augment) for augment in CROPS}
    for i, augment in enumerate(CROPS):
        assert views[i].shape == (4, augment.size, augment.size, 3)
        close(views[i], alone[augment](ops.fold(keys(4), i), {"image": PICTURES}))


def test_a_view_depends_on_its_place_and_its_example_alone(views, spread):
    some = jax.jit(partial(draw_views, CROPS[:4]))(keys(4)[2:], {"image": PICTURES[2:]})
    jax.tree.map(close, some, tuple(view[2:] for view in views[:4]))

    def on_a_shard(pictures):
        return draw_views(CROPS, example_keys(jax.random.key(0), len(pictures), "data"), pictures)

    jax.tree.map(close, spread(on_a_shard, 4, P("data"))(PICTURES), views)
    for i, j in ((2, 3), (3, 4), (2, 4)):
        assert jnp.abs(views[i] - views[j]).max(axis=(1, 2, 3)).min() > 0.1


def test_equal_crops_are_compiled_once():
    def products(local_crops):
        draw = partial(draw_views, make_views("dino", local_crops=local_crops))
        images = jax.ShapeDtypeStruct((2, 300, 300, 3), jnp.uint8)
        return str(jax.make_jaxpr(draw)(keys(2), images)).count("dot_general")

    assert products(8) == products(1) > products(0)


def test_views_of_several_sizes_are_shown_as_pictures_of_one(views):
    normalised = tuple(replace(crop, mean=recipes.IMAGENET_MEAN, std=recipes.IMAGENET_STD) for crop in CROPS)
    shown = jax.jit(partial(show_views, normalised))(keys(4), {"image": PICTURES})
    assert shown.shape == (4, 6, 16, 16, 3)
    for i in (0, 1):
        close(shown[:, 1 + i], views[i])
    for i in (2, 3, 4):
        whole = jnp.tile(jnp.array([0, 0, 8, 8]), (4, 1))
        close(shown[:, 1 + i], ops.crop_and_resize(views[i], whole, 16))


WHOLE = Augment(20, (1.0, 1.0), "bilinear", flip=0.0)  # the only crop that fits a square is all of it


def test_grey_comes_before_the_jitter_where_a_recipe_says_so():
    picture = ops.as_planes(ops.as_float(jnp.asarray(PICTURES)))
    fields = {"jitter": 1.0, "grey": 1.0, "brightness": 0.8, "contrast": 0.8, "saturation": 0.0, "hue": 0.0}
    jitter = partial(
        ops.color_jitter, ops.fold(keys(4), 3), **{k: v for k, v in fields.items() if k not in ("jitter", "grey")}
    )
    expected = {True: jitter(ops.greyscale(picture)), False: ops.greyscale(jitter(picture))}
    assert jnp.abs(expected[True] - expected[False]).max() > 0.01
    for first in (True, False):
        view = jax.jit(replace(WHOLE, grey_first=first, **fields))(keys(4), PICTURES)
        close(view, ops.as_images(expected[first]), atol=1e-4)


def test_the_blurs_window_is_what_a_recipe_says_or_a_tenth_of_the_view():
    picture = ops.as_planes(ops.as_float(jnp.asarray(PICTURES)))
    sigma = jnp.full(4, 2.0)
    for window, pixels in ((0, 3), (9, 9)):
        view = jax.jit(replace(WHOLE, blur=1.0, sigma=(2.0, 2.0), window=window))(keys(4), PICTURES)
        close(view, ops.as_images(ops.gaussian_blur(picture, sigma, pixels)), atol=1e-4)
    with pytest.raises(ValueError, match="views.window -1 must be a side in pixels"):
        Augment(8, window=-1)


# Grey images ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything():
    """Views of grey images with every operation that a recipe has, seen as they are."""
    first, second = make_views("byol", size=16, mean=(0.0,) * 3, std=(1.0,) * 3, solarize=0.5, jitter=1.0, hue=0.4)
    return jax.jit(partial(draw_views, (replace(first, grey_first=True), second)))


def stay_grey(views):
    for view in views:
        assert jnp.isfinite(view).all()
        np.testing.assert_allclose(view, np.repeat(view[..., :1], 3, axis=-1), atol=1e-3)
        assert view.std() > 0.01


def test_grey_images_stay_grey_and_finite(everything):
    """Hue and saturation of grey are 0 / 0 if one is careless; flat pictures have no contrast either."""
    grey = np.repeat(PICTURES[..., :1], 3, axis=-1)
    grey[0], grey[1] = 0, 255
    stay_grey(everything(keys(4), grey))


def write_npz(folder, grey):
    np.savez(folder / "grey.npz", train_image=grey)
    return f"npz:{folder / 'grey.npz'}"


def write_npz_with_channel(folder, grey):
    return write_npz(folder, grey[..., None])


def write_png(folder, grey):
    (folder / "train").mkdir()
    for i, image in enumerate(grey):
        Image.fromarray(image).save(folder / "train" / f"{i}.png")
    return f"folder:{folder}"


@pytest.mark.parametrize("write", [write_npz, write_npz_with_channel, write_png])
def test_grey_files_become_views(tmp_path, write, everything):
    """From 8-bit grey, without a channel or with one, to three equal channels that every augmentation takes."""
    grey = PICTURES[..., 0]
    source = open_source(write(tmp_path, grey), "train")
    images = np.stack([source[i]["image"] for i in range(len(source))])
    np.testing.assert_array_equal(images, np.repeat(grey[..., None], 3, axis=-1))
    stay_grey(everything(keys(4), images))


def test_images_with_one_channel_are_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"images \(4, 20, 20, 1\) must have three channels .* repeat a grey image's"):
        Augment(8)(keys(4), PICTURES[..., :1])

"""The Vision Transformer's options: each does what it says and costs the others nothing."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import PartitionSpec as P

from ssljax.models.positions import bicubic, resize_positions, sincos_positions
from ssljax.models.vit import Block, Blocks, ViT, gelu

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
IMAGES = np.random.RandomState(0).standard_normal((3, 16, 24, 3)).astype(np.float32)
PATCHES = 2 * 3
tiny = partial(ViT, patch=8, width=16, depth=2, heads=2)


def apply(vit, variables, images=IMAGES, **options):
    static = ("train", "method", "last", "norm")
    return jax.jit(vit.apply, static_argnames=static)(variables, images, **options)


tokens = partial(apply, method="tokens")


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def stacked(variables):
    """Parameters of the plain encoder as the scanned one has them: one leading axis for all blocks."""
    blocks = variables["params"]["encoder"]
    in_order = [blocks[f"block{i}"] for i in range(len(blocks))]
    encoder = {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *in_order)}
    return {"params": {**variables["params"], "encoder": encoder}}


# Memory and compile time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scan, remat", [(True, ""), (False, "blocks"), (False, "products"), (True, "products")])
def test_scan_and_remat_change_neither_output_nor_gradient(draw, scan, remat):
    def loss(vit, variables):
        return jnp.sum(jnp.sin(vit.apply(variables, IMAGES, train=True, keys=keys(3))))

    options = {"drop_path": 0.3, "layer_scale": 0.5}
    plain, other = tiny(**options), tiny(**options, scan=scan, remat=remat)
    variables = draw(plain, IMAGES)
    arrange = stacked if scan else lambda tree: tree
    expected, gradient = jax.jit(jax.value_and_grad(partial(loss, plain)))(variables)
    value, other_gradient = jax.jit(jax.value_and_grad(partial(loss, other)))(arrange(variables))
    close(value, expected)
    jax.tree.map(close, other_gradient, arrange(gradient))


def test_what_is_kept_for_the_backward_pass(draw):
    """Of products what the backward pass needs of those with weights: queries, keys and values (3 widths of each
    token), what heads bring together (1), and hidden units (4); of blocks nothing but their inputs."""

    def kept(remat):
        vit = tiny(remat=remat)
        variables = draw(vit, IMAGES)
        pullback = jax.eval_shape(lambda v: jax.vjp(lambda v: vit.apply(v, IMAGES).sum(), v)[1], variables)
        return sum(x.size for x in jax.tree.leaves(pullback))

    everything, products, blocks = map(kept, ("", "products", "blocks"))
    assert products - blocks == 2 * (3 + 1 + 4) * 16 * len(IMAGES) * (1 + PATCHES)
    assert everything - blocks > 2 * (products - blocks)
    with pytest.raises(ValueError, match=r"--config.encoder.remat=True is unknown; use products or blocks"):
        kept("True")


def test_scan_draws_every_layer_anew():
    blocks = jax.jit(lambda: tiny(scan=True).init(jax.random.key(0), IMAGES)["params"]["encoder"]["blocks"])()
    kernel = blocks["mlp1"]["kernel"]
    assert len({float(layer.sum()) for layer in kernel}) == 2


@pytest.mark.parametrize("scan, remat", [(False, "products"), (True, "blocks")])
def test_last_blocks_are_the_same_with_scan_and_remat(draw, scan, remat):
    plain = tiny(depth=3)
    variables = draw(plain, IMAGES)

    def loss(vit, variables):
        earlier, later = vit.apply(variables, IMAGES, last=2, norm=False, method="tokens")
        return jnp.sum(jnp.sin(earlier) + jnp.cos(later)), (earlier, later)

    arrange = stacked if scan else lambda tree: tree
    expected = jax.jit(jax.value_and_grad(partial(loss, plain), has_aux=True))(variables)
    other = tiny(depth=3, scan=scan, remat=remat)
    actual = jax.jit(jax.value_and_grad(partial(loss, other), has_aux=True))(arrange(variables))
    jax.tree.map(close, actual, (expected[0], arrange(expected[1])))


def test_last_blocks_of_a_scan_are_the_same_on_shards(draw, spread):
    images = np.concatenate([IMAGES, IMAGES[:1]])
    vit = tiny(scan=True)
    variables = draw(vit, images)
    forward = partial(vit.apply, variables, last=2, method="tokens")
    jax.tree.map(close, spread(forward, 2, P("data"))(images), jax.jit(forward)(images))


# Visible patches ------------------------------------------------------------------------------------------------------


def test_all_patches_kept_in_order_is_no_mask(draw):
    vit = tiny()
    variables = draw(vit, IMAGES)
    everything = jnp.tile(jnp.arange(PATCHES), (3, 1))
    close(tokens(vit, variables, keep=everything), tokens(vit, variables))


def test_only_kept_patches_are_encoded(draw):
    """What lies in the others has no influence at all, and they cost no token."""
    vit = tiny()
    variables = draw(vit, IMAGES)
    keep = jnp.array([[0, 4], [5, 1], [2, 3]])
    seen = tokens(vit, variables, keep=keep)
    assert seen.shape == (3, 1 + 2, 16)
    visible = np.zeros((3, PATCHES), bool)
    np.put_along_axis(visible, np.asarray(keep), True, axis=1)
    pixels = visible.reshape(3, 2, 3).repeat(8, axis=1).repeat(8, axis=2)[..., None]
    np.testing.assert_array_equal(tokens(vit, variables, np.where(pixels, IMAGES, 100.0), keep=keep), seen)
    assert jnp.abs(tokens(vit, variables, np.where(pixels, 100.0, IMAGES), keep=keep) - seen).max() > 0.1


def test_patches_keep_their_positions_whatever_the_order(draw):
    vit = tiny()
    variables = draw(vit, IMAGES)
    there, back = jnp.tile(jnp.array([1, 3, 5]), (3, 1)), jnp.tile(jnp.array([5, 3, 1]), (3, 1))
    seen, reversed_ = tokens(vit, variables, keep=there), tokens(vit, variables, keep=back)
    close(reversed_[:, :1], seen[:, :1])
    close(reversed_[:, 1:], seen[:, :0:-1])


# Masked patches -------------------------------------------------------------------------------------------------------

MASKED = np.array([[1, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]], bool)


def test_what_lies_in_masked_patches_has_no_influence(draw):
    vit = tiny(mask_token=True)
    variables = draw(vit, IMAGES)
    seen = tokens(vit, variables, masked=MASKED)
    pixels = MASKED.reshape(3, 2, 3).repeat(8, axis=1).repeat(8, axis=2)[..., None]
    np.testing.assert_array_equal(tokens(vit, variables, np.where(pixels, 100.0, IMAGES), masked=MASKED), seen)
    others = tokens(vit, variables, np.where(pixels, IMAGES, 100.0), masked=MASKED)
    assert jnp.abs(others - seen)[:2].max() > 0.1
    close(seen[1], tokens(vit, variables)[1])


def test_masked_patches_are_the_mask_token_at_their_positions(draw):
    """A patch whose embedding is the mask token, because its pixels are zero and the token is the bias, is the same."""
    vit = tiny(mask_token=True)
    variables = draw(vit, IMAGES)
    variables["params"]["mask_token"] = variables["params"]["patch_embed"]["bias"]
    pixels = MASKED.reshape(3, 2, 3).repeat(8, axis=1).repeat(8, axis=2)[..., None]
    close(tokens(vit, variables, masked=MASKED), tokens(vit, variables, np.where(pixels, 0.0, IMAGES)))


def test_mask_token_learns_where_patches_are_masked(draw):
    vit = tiny(mask_token=True)
    variables = draw(vit, IMAGES)

    @jax.jit
    def gradient(masked):
        return jax.grad(lambda v: jnp.sin(vit.apply(v, IMAGES, masked=masked, method="tokens")).sum())(variables)

    assert jnp.abs(gradient(MASKED)["params"]["mask_token"]).min() > 0
    np.testing.assert_array_equal(gradient(np.zeros_like(MASKED))["params"]["mask_token"], 0.0)


def test_there_is_a_mask_token_only_where_asked_for(draw):
    with_token, without = draw(tiny(mask_token=True), IMAGES)["params"], draw(tiny(), IMAGES)["params"]
    assert with_token.keys() - without.keys() == {"mask_token"}


# Outputs of the last blocks -------------------------------------------------------------------------------------------


def test_the_last_of_the_last_blocks_is_the_output(draw):
    """And with one block less, the encoder ends with the one before."""
    vit = tiny()
    variables = draw(vit, IMAGES)
    one, two = tokens(vit, variables, last=2)
    close(two, tokens(vit, variables))
    close(one, tokens(tiny(depth=1), variables))
    close(tokens(vit, variables, last=1)[0], two)


def test_blocks_may_be_left_without_the_last_norm(draw):
    vit = tiny()
    variables = draw(vit, IMAGES)
    for raw, normed in zip(tokens(vit, variables, last=2, norm=False), tokens(vit, variables, last=2), strict=True):
        scaled = (raw - raw.mean(-1, keepdims=True)) / np.sqrt(raw.var(-1, keepdims=True) + 1e-6)
        close(normed, scaled * variables["params"]["norm"]["scale"] + variables["params"]["norm"]["bias"])


def test_the_norms_epsilon_is_the_papers_1e_6(draw):
    """PyTorch's default is 1e-5, and shows where tokens are small."""
    vit = tiny(positions="learned")
    variables = jax.tree.map(jnp.zeros_like, draw(vit, IMAGES))
    variables["params"]["norm"]["scale"] += 1.0
    token = 1e-3 * np.random.RandomState(1).standard_normal((1, 16)).astype(np.float32)
    variables["params"]["prefix"] += token
    expected = (token - token.mean()) / np.sqrt(token.var() + 1e-6)
    close(apply(vit, variables), np.tile(expected, (3, 1)))


# Stochastic depth and LayerScale --------------------------------------------------------------------------------------


@pytest.mark.parametrize("silenced", ["mlp2", "attention"], ids=["attention", "mlp"])
def test_drop_path_drops_a_branch_of_an_example_with_its_probability(draw, silenced):
    """Of a block with one branch silenced, an example keeps x, or x + branch / (1 - rate), in the right proportion."""
    rate, n = 0.3, 4000
    block = Block(heads=2)
    x = np.random.RandomState(1).standard_normal((n, 2, 4)).astype(np.float32)
    variables = draw(block, x[:1])

    def silence(path, leaf):
        return jnp.zeros_like(leaf) if silenced in path else leaf

    variables = traverse_util.path_aware_map(silence, variables)
    whole = jax.jit(block.apply)(variables, x) - x
    kept = jax.jit(block.apply)(variables, x, rate, keys(n)) - x
    dropped = (np.asarray(kept) == 0).all(axis=(1, 2))
    close(kept[~dropped], whole[~dropped] / (1 - rate))
    standard_error = np.sqrt(rate * (1 - rate) / n)
    assert abs(dropped.mean() - rate) < 4 * standard_error


def test_the_two_branches_are_dropped_independently(draw):
    rate, n = 0.5, 4000
    block = Block(heads=2)
    x = np.random.RandomState(1).standard_normal((n, 2, 4)).astype(np.float32)
    variables = draw(block, x[:1])
    untouched = (np.asarray(jax.jit(block.apply)(variables, x, rate, keys(n))) == x).all(axis=(1, 2))
    assert abs(untouched.mean() - rate**2) < 4 * np.sqrt(rate**2 * (1 - rate**2) / n)


@pytest.mark.parametrize("scan, uniform", [(False, False), (True, False), (False, True)])
def test_drop_path_grows_linearly_with_depth_or_is_uniform(draw, scan, uniform):
    """Layers' branches are made 1, 10 and 100 by their biases, so that the sum tells which were kept."""
    n, rates = 4000, np.array([0.5, 0.5, 0.5] if uniform else [0.0, 0.25, 0.5])
    blocks = Blocks(depth=3, heads=1, drop_path=0.5, drop_path_uniform=uniform)
    x = np.zeros((n, 1, 2), np.float32)
    variables = jax.tree.map(jnp.zeros_like, draw(blocks, x[:1]))
    for i in range(3):
        variables["params"][f"block{i}"]["mlp2"]["bias"] += 10.0**i * (1 - rates[i])
    if scan:
        blocks = blocks.clone(scan=True)
        variables = {"params": stacked({"params": {"encoder": variables["params"]}})["params"]["encoder"]}
    sums = np.asarray(jax.jit(blocks.apply)(variables, x, keys(n))[:, 0, 0]).round()
    for i, rate in enumerate(rates):
        dropped = 1 - (sums // 10**i % 10).mean()
        assert abs(dropped - rate) <= 4 * np.sqrt(rate * (1 - rate) / n)


def test_drop_path_is_off_in_evaluation_and_at_rate_zero(draw):
    variables = draw(tiny(), IMAGES)
    expected = apply(tiny(), variables)
    np.testing.assert_array_equal(apply(tiny(drop_path=0.5), variables, keys=keys(3)), expected)
    np.testing.assert_array_equal(apply(tiny(drop_path=0.0), variables, train=True, keys=keys(3)), expected)
    assert jnp.abs(apply(tiny(drop_path=0.5), variables, train=True, keys=keys(3)) - expected).max() > 0.01


def test_drop_path_of_an_example_does_not_depend_on_its_batch(draw):
    vit = tiny(drop_path=0.5)
    variables = draw(vit, IMAGES)
    whole = apply(vit, variables, train=True, keys=keys(3))
    one = apply(vit, variables, IMAGES[1:2], train=True, keys=keys(3)[1:2])
    close(whole[1:2], one)


def test_layer_scale_multiplies_both_branches(draw):
    """The same factors, multiplied into what each branch ends with, give the same encoder without LayerScale."""
    variables = draw(tiny(layer_scale=1.0), IMAGES)
    folded = jax.tree.map(lambda x: x, variables)
    for block in folded["params"]["encoder"].values():
        for factor, last in (("layer_scale1", block["attention"]["out"]), ("layer_scale2", block["mlp2"])):
            factor = block.pop(factor)
            last.update({part: value * factor for part, value in last.items()})
    close(apply(tiny(layer_scale=1.0), variables), apply(tiny(), folded))


def test_layer_scale_starts_at_its_value():
    block = jax.jit(lambda: tiny(layer_scale=1e-4).init(jax.random.key(0), IMAGES)["params"]["encoder"]["block0"])()
    for factor in ("layer_scale1", "layer_scale2"):
        np.testing.assert_array_equal(block[factor], np.full(16, 1e-4, np.float32))


# Tokens and positions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("registers, cls_token, prefix", [(0, True, 1), (4, True, 5), (4, False, 4), (0, False, 0)])
def test_prefix_holds_class_token_and_registers(draw, registers, cls_token, prefix):
    vit = tiny(registers=registers, cls_token=cls_token, pool="mean")
    variables = draw(vit, IMAGES)
    assert vit.num_prefix == prefix
    all_tokens = tokens(vit, variables)
    assert all_tokens.shape == (3, prefix + PATCHES, 16)
    close(apply(vit, variables), all_tokens[:, prefix:].mean(axis=1))


def test_registers_take_part_in_attention(draw):
    vit = tiny(registers=2)
    variables = draw(vit, IMAGES)
    negated = variables["params"]["prefix"] * np.array([[1.0], [-1.0], [-1.0]])
    other = {"params": variables["params"] | {"prefix": negated}}
    assert jnp.abs(apply(vit, other) - apply(vit, variables)).max() > 1e-3


def test_pool_cls_is_the_class_tokens_output(draw):
    vit = tiny(registers=2)
    variables = draw(vit, IMAGES)
    close(apply(vit, variables), tokens(vit, variables)[:, 0])


@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_positions_tell_patches_apart(draw, positions):
    """Without positions, the class token could not tell an image from one whose patches have changed places."""
    vit = tiny(positions=positions)
    variables = draw(vit, IMAGES)
    swapped = np.concatenate([IMAGES[:, :, 8:16], IMAGES[:, :, :8], IMAGES[:, :, 16:]], axis=2)
    assert jnp.abs(apply(vit, variables, swapped) - apply(vit, variables)).max() > 1e-3
    if positions == "learned":
        variables["params"]["positions"] *= 0.0
        close(apply(vit, variables, swapped), apply(vit, variables))


def test_sincos_positions_are_rows_and_columns_of_the_grid():
    """The first half depends on the column alone, the second on the row alone."""
    table = sincos_positions(2, 3, 8).reshape(2, 3, 8)
    np.testing.assert_array_equal(table[0, :, :4], table[1, :, :4])
    np.testing.assert_array_equal(table[:, 0, 4:], table[:, 2, 4:])
    close(table[0, 2, :4], [np.sin(2), np.sin(2 / 100), np.cos(2), np.cos(2 / 100)])


# Learned positions at other sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(3, 5), (10, 16), (7, 4)], ids=lambda grid: "x".join(map(str, grid)))
@pytest.mark.parametrize("variant", ["plain", "offset", "antialias"])
def test_positions_are_resized_as_pytorch_does(golden, variant, grid):
    numbers = golden("dinov2")
    positions = numbers["positions"].reshape(49, 2)
    resized = resize_positions(positions, grid, 0.1 * (variant == "offset"), variant == "antialias")
    close(resized.reshape(*grid, 2), numbers[f"resized.{variant}.{grid[0]}x{grid[1]}"])


@pytest.mark.parametrize("antialias", [False, True])
def test_resizing_keeps_constants_and_what_has_its_size(antialias):
    np.testing.assert_allclose(bicubic(5, 3, 0.1, antialias).sum(axis=1), 1.0)
    np.testing.assert_allclose(bicubic(5, 5, 0.0, antialias), np.eye(5), atol=1e-12)


@pytest.mark.parametrize("offset, antialias", [(0.1, False), (0.0, True)])
def test_learned_positions_are_resized_to_other_images(draw, offset, antialias):
    """From the 3 x 3 patches of square images to 2 x 3, as if they had been stored for them."""
    vit = tiny(positions="learned", position_offset=offset, position_antialias=antialias)
    square = np.random.RandomState(1).standard_normal((3, 24, 24, 3)).astype(np.float32)
    variables = draw(vit, square)
    positions = resize_positions(variables["params"]["positions"], (2, 3), offset, antialias)
    close(apply(vit, variables), apply(vit, {"params": variables["params"] | {"positions": positions}}))
    np.testing.assert_array_equal(apply(vit, variables, square), apply(tiny(positions="learned"), variables, square))


def test_a_square_number_of_positions_is_a_square():
    """Those of 4 x 4 patches are not those of 2 x 8."""
    positions = np.random.RandomState(0).standard_normal((16, 3)).astype(np.float32)
    expected = np.einsum("ir,jc,rcw->ijw", bicubic(4, 2), bicubic(4, 8), positions.reshape(4, 4, 3))
    close(resize_positions(positions, (2, 8)).reshape(2, 8, 3), expected)
    assert resize_positions(positions, (4, 4)) is positions


def test_half_precision_stays_near_and_features_are_float32(draw):
    variables = draw(tiny(), IMAGES)
    features = apply(tiny(dtype=jnp.bfloat16), variables)
    assert features.dtype == jnp.float32
    difference = jnp.abs(features - apply(tiny(), variables)).max()
    assert 0 < difference < 0.1


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"heads": 3}, "width 16 must be divisible by heads 3"),
        ({"positions": "rotary"}, "positions 'rotary' are unknown; use 'learned' or 'sincos'"),
        ({"ffn": "glu"}, "ffn 'glu' is unknown; use 'mlp' or 'swiglu'"),
        ({"initializer": "bert"}, "initializer 'bert' is unknown; use one of mae, moco_v3, dino, ijepa"),
        ({"pool": "max"}, "pool 'max' with cls_token=True is not possible"),
        ({"cls_token": False}, "pool 'cls' with cls_token=False is not possible"),
    ],
)
def test_impossible_fields_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny(**fields)


def test_impossible_inputs_are_refused():
    with pytest.raises(ValueError, match="images of 16x20 cannot be cut into patches of 8"):
        tiny().init(jax.random.key(0), jnp.zeros((1, 16, 20, 3)))
    with pytest.raises(ValueError, match="drop_path=0.5 in train mode needs `keys`"):
        tiny(drop_path=0.5).init(jax.random.key(0), IMAGES, train=True)
    for masked, vit in ((MASKED, tiny()), (MASKED[:, :3], tiny(mask_token=True))):
        with pytest.raises(ValueError, match=r"masked of shape \(3, .\) .* must be \(3, 6\), and .* mask_token=True"):
            vit.init(jax.random.key(0), IMAGES, masked=masked, method="tokens")
    for last in (0, 3):
        with pytest.raises(ValueError, match=f"the last {last} blocks were asked for, but there are 2"):
            tiny().init(jax.random.key(0), IMAGES, last=last, method="tokens")
    with pytest.raises(ValueError, match="6 learned positions are not a square grid and cannot be resized to 3x3"):
        resize_positions(np.zeros((6, 2)), (3, 3))
    with pytest.raises(ValueError, match="width that 4 divides, but it is 6"):
        sincos_positions(2, 2, 6)


def test_gelu_and_its_written_out_derivative_are_the_exact_ones():
    x = jnp.linspace(-6, 6, 101)
    exact = partial(jax.nn.gelu, approximate=False)
    np.testing.assert_allclose(gelu(x), exact(x), atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), jax.vmap(jax.grad(exact))(x), atol=1e-6)
    assert jax.grad(lambda y: gelu(y).sum())(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


# Initial values and the frozen patch projection -----------------------------------------------------------------------


def test_kernels_start_as_the_papers():
    """Uniform up to √(6 / (fan-in + fan-out)): MAE's and timm's fan-out is of queries, keys and values together; MoCo
    v3's of each. DINO's and I-JEPA's are normal, not cut at two standard deviations, I-JEPA's of patches too."""
    dim, pixels = 64, 8 * 8 * 3

    def start(initializer):
        vit = tiny(width=dim, depth=1, initializer=initializer, registers=15)
        return vit.init(jax.random.key(0), IMAGES)["params"]

    mae, moco, dino, ijepa = jax.jit(lambda: [start(name) for name in ("mae", "moco_v3", "dino", "ijepa")])()

    def assert_bound(kernel, bound):
        assert 0.99 * bound < np.abs(kernel).max() <= bound

    for params, packed in ((mae, 3), (moco, 1)):
        block = params["encoder"]["block0"]
        assert_bound(params["patch_embed"]["kernel"], np.sqrt(6 / (pixels + dim)))
        assert_bound(block["attention"]["query"]["kernel"], np.sqrt(6 / (dim + packed * dim)))
        assert_bound(block["attention"]["out"]["kernel"], np.sqrt(6 / (dim + dim)))
        assert_bound(block["mlp1"]["kernel"], np.sqrt(6 / (dim + 4 * dim)))
    assert_bound(dino["patch_embed"]["kernel"], np.sqrt(1 / pixels))
    for kernel in (
        dino["encoder"]["block0"]["attention"]["query"]["kernel"],
        dino["encoder"]["block0"]["mlp2"]["kernel"],
        ijepa["encoder"]["block0"]["mlp2"]["kernel"],
        ijepa["patch_embed"]["kernel"],
    ):
        assert abs(kernel.std() / 0.02 - 1) < 0.05 and np.abs(kernel).max() > 3 * 0.02
    for params, deviation in ((mae, 0.02), (moco, 1e-6), (dino, 0.02)):
        assert abs(params["prefix"].std() / deviation - 1) < 0.1


def test_no_gradient_reaches_a_frozen_patch_projection(draw):
    """All else is the same: names, outputs, the other gradients and that by the images."""
    free, frozen = tiny(), tiny(freeze_patch_embed=True)
    variables = draw(free, IMAGES)
    jax.tree.map(np.testing.assert_array_equal, draw(frozen, IMAGES), variables)

    def loss(vit, variables, images):
        return jnp.sum(jnp.sin(vit.apply(variables, images)))

    (expected, of_images), (gradient, frozen_of_images) = (
        jax.jit(jax.grad(partial(loss, vit), argnums=(0, 1)))(variables, IMAGES) for vit in (free, frozen)
    )
    close(frozen_of_images, of_images)
    projection = gradient["params"].pop("patch_embed")
    assert min(jnp.abs(leaf).max() for leaf in jax.tree.leaves(expected["params"].pop("patch_embed"))) > 0
    jax.tree.map(lambda leaf: np.testing.assert_array_equal(leaf, 0.0), projection)
    jax.tree.map(close, gradient, expected)


def test_a_frozen_patch_projection_starts_as_a_free_one():
    free, frozen = jax.jit(
        lambda: [tiny(freeze_patch_embed=f).init(jax.random.key(0), IMAGES)["params"]["patch_embed"] for f in (0, 1)]
    )()
    jax.tree.map(np.testing.assert_array_equal, frozen, free)

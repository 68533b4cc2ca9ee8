"""What a Transformer's blocks keep for the backward pass, and what they compute again."""

import flax.linen as nn
import jax

POLICIES = {
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "blocks": jax.checkpoint_policies.nothing_saveable,
}


def rematerialised(block: type[nn.Module], remat: str) -> type[nn.Module]:
    """`block`, of which the backward pass has kept, by `remat`:

    "": all that it needs;
    "products": each block's input and what its matrix products with weights give; attention, norms and activations are
        computed again, which is little work (`benchmarks/remat.py`);
    "blocks": each block's input alone; all of the block is computed again, up to a third of a step's work more.

    Raises ValueError for another word.
    """
    if not remat:
        return block
    if remat not in POLICIES:
        raise ValueError(f"--config.encoder.remat={remat} is unknown; use {' or '.join(POLICIES)}, or leave it out.")
    return nn.remat(block, policy=POLICIES[remat])

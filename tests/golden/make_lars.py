"""Five steps of LARS with a changing learning rate, in the two conventions that papers use.

- `last`, of BYOL, MoCo v3, Barlow Twins and VICReg: decay, trust ratio, momentum, and the rate last. By timm's Lars,
  which is given gradients that already hold the decay (its own decay enters the trust ratio in a third way).
- `first`, of SimCLR: the rate enters before momentum. A loop in NumPy of Google's `LARSOptimizer` with
  `classic_momentum`.

In both, parameters of one dimension (biases, scales of norms) are neither decayed nor adapted.
"""

import numpy as np
import timm
import torch
from seeded import save
from timm.optim import Lars

RATES = (0.0, 1.5, 3.0, 2.0, 0.5)
MOMENTUM, DECAY, TRUST = 0.9, 0.01, 0.001
SHAPES = {
    "dense/kernel": (5, 4),
    "conv/kernel": (3, 3, 2, 4),
    "zeros/kernel": (4, 3),
    "dense/bias": (4,),
    "norm/scale": (4,),
}


def rate_last(params, gradients):
    params = {name: torch.tensor(p, dtype=torch.float64) for name, p in params.items()}
    adapted = [p for p in params.values() if p.ndim > 1]
    plain = [p for p in params.values() if p.ndim <= 1]
    shared = {"momentum": MOMENTUM, "weight_decay": 0.0, "trust_coeff": TRUST, "eps": 0.0}
    optimisers = [Lars(adapted, always_adapt=True, **shared), torch.optim.SGD(plain, momentum=MOMENTUM)]
    for step, rate in enumerate(RATES):
        for name, p in params.items():
            p.grad = torch.tensor(gradients[name][step], dtype=torch.float64) + (DECAY * p if p.ndim > 1 else 0.0)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
        yield {name: p.numpy().copy() for name, p in params.items()}


def rate_first(params, gradients):
    params = {name: p.astype(np.float64) for name, p in params.items()}
    velocity = {name: np.zeros_like(p) for name, p in params.items()}
    for step, rate in enumerate(RATES):
        for name, p in params.items():
            gradient, trust = gradients[name][step].astype(np.float64), 1.0
            if p.ndim > 1:
                gradient = gradient + DECAY * p
                norms = np.linalg.norm(p), np.linalg.norm(gradient)
                trust = TRUST * norms[0] / norms[1] if all(norms) else 1.0
            velocity[name] = MOMENTUM * velocity[name] + rate * trust * gradient
            params[name] = p - velocity[name]
        yield dict(params)


def main():
    random = np.random.RandomState(5)
    steps = len(RATES)
    params = {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    params["zeros/kernel"][:] = 0.0  # its trust ratio is 1 until it has moved
    gradients = {name: random.standard_normal((steps, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    arrays = {"rates": np.array(RATES), "momentum": MOMENTUM, "decay": DECAY, "trust": TRUST}
    for name in SHAPES:
        arrays |= {f"{name}:start": params[name], f"{name}:gradients": gradients[name]}
    for convention, run in (("last", rate_last), ("first", rate_first)):
        trajectory = list(run(params, gradients))
        arrays |= {f"{name}:{convention}": np.stack([at[name] for at in trajectory]) for name in SHAPES}
    made_by = f"last: timm {timm.__version__}, torch {torch.__version__}; first: NumPy {np.__version__}; in float64"
    save("lars", made_by, **arrays)


if __name__ == "__main__":
    main()

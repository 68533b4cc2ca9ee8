"""DINO, iBOT, KoLeo and soft cross-entropy, values, gradients and centres: lightly's losses, PyTorch's, and iBOT's,
whose centre is of all patches."""

import lightly
import numpy as np
import torch
import torch.nn.functional as F
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from seeded import save

BATCH, K, DIM, VIEWS, TEACHER_VIEWS, GRID, STEPS = 8, 6, 16, 4, 2, (3, 4), 2
TEMPERATURES = 0.04, 0.07  # the teacher's, one for each step
MOMENTUM, STUDENT_TEMPERATURE = 0.9, 0.1


def double(x):
    return torch.tensor(x, dtype=torch.float64)


def student_logits(random, *shape):
    return (0.2 * random.standard_normal((STEPS, *shape, K))).astype(np.float32)


def teacher_logits(random, *shape):
    """Prototypes differ in their means, so that a centre matters."""
    return (0.1 * random.standard_normal((STEPS, *shape, K)) + random.uniform(-0.5, 0.5, K)).astype(np.float32)


def dino(arrays, random):
    """Two steps, so that in the second the centre is the first one's."""
    arrays["dino_student"] = student_logits(random, VIEWS, BATCH)
    arrays["dino_teacher"] = teacher_logits(random, TEACHER_VIEWS, BATCH)
    loss_of = DINOLoss(K, student_temp=STUDENT_TEMPERATURE, center_momentum=MOMENTUM).double()
    for step, temperature in enumerate(TEMPERATURES):
        student = [double(view).requires_grad_() for view in arrays["dino_student"][step]]
        teacher = [double(view) for view in arrays["dino_teacher"][step]]
        loss = loss_of(teacher, student, teacher_temp=temperature)
        arrays[f"dino_{step}"] = loss.item()
        arrays[f"dino_{step}_gradient"] = torch.stack(torch.autograd.grad(loss, student)).numpy()
        arrays[f"dino_{step}_center"] = loss_of.center.flatten().numpy()


def ibot(arrays, random):
    """Two steps; the first image has no masked patch, the second one, the others any number."""
    arrays["ibot_student"] = student_logits(random, BATCH, *GRID)
    arrays["ibot_teacher"] = teacher_logits(random, BATCH, *GRID)
    mask = random.uniform(size=(STEPS, BATCH, *GRID)) < random.uniform(0.1, 0.6, size=(STEPS, BATCH, 1, 1))
    mask[:, :2] = False
    mask[:, 1, 0, 1] = True
    arrays["ibot_mask"] = mask
    masked_only = IBOTPatchLoss(K, student_temp=STUDENT_TEMPERATURE, center_momentum=MOMENTUM).double()
    center_of_all = torch.zeros(K, dtype=torch.float64)
    for step, temperature in enumerate(TEMPERATURES):
        student = double(arrays["ibot_student"][step]).requires_grad_()
        teacher = double(arrays["ibot_teacher"][step])
        masked = torch.tensor(mask[step])

        loss = masked_only(teacher[masked], student[masked], masked, teacher_temp=temperature)
        arrays[f"lightly_ibot_{step}"] = loss.item()
        arrays[f"lightly_ibot_{step}_gradient"] = torch.autograd.grad(loss, student)[0].numpy()
        arrays[f"lightly_ibot_{step}_center"] = masked_only.center.value.flatten().numpy()

        # iBOT's own code, which lightly departs from: dense, and the centre is of masked and visible patches.
        p = F.softmax((teacher - center_of_all) / temperature, dim=-1)
        entropy = -(p * F.log_softmax(student / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)
        of_image = [
            entropy[b][masked[b]].mean() if masked[b].any() else 0.0 * entropy[b].sum() for b in range(len(student))
        ]
        loss = torch.stack(of_image).mean()
        center_of_all = MOMENTUM * center_of_all + (1 - MOMENTUM) * teacher.mean(dim=(0, 1, 2))
        arrays[f"official_ibot_{step}"] = loss.item()
        arrays[f"official_ibot_{step}_gradient"] = torch.autograd.grad(loss, student)[0].numpy()
        arrays[f"official_ibot_{step}_center"] = center_of_all.numpy()


def koleo(arrays, random):
    features = random.standard_normal((BATCH, DIM)).astype(np.float32)
    duplicated = features.copy()
    duplicated[5] = duplicated[1]
    for name, x in (("koleo", features), ("koleo_duplicated", duplicated)):
        x = double(x).requires_grad_()
        loss = KoLeoLoss()(x)
        arrays |= {f"{name}_features": x.detach().numpy(), name: loss.item()}
        arrays[f"{name}_gradient"] = torch.autograd.grad(loss, x)[0].numpy()


def soft_cross_entropy(arrays, random):
    """Two temperatures; the divergence to the teacher, plus the teacher's entropy, is the same."""
    arrays["soft_student"], arrays["soft_teacher"] = random.standard_normal((2, BATCH, K)).astype(np.float32)
    teacher = double(arrays["soft_teacher"])
    for temperature in (0.1, 1.0):
        student = double(arrays["soft_student"]).requires_grad_()
        loss = F.cross_entropy(student / temperature, F.softmax(teacher / temperature, dim=1))
        arrays[f"soft_{temperature}"] = loss.item()
        arrays[f"soft_{temperature}_gradient"] = torch.autograd.grad(loss, student)[0].numpy()
        log_p = F.log_softmax(teacher / temperature, dim=1)
        divergence = F.kl_div(
            F.log_softmax(student / temperature, dim=1), log_p, reduction="batchmean", log_target=True
        )
        entropy = -(log_p.exp() * log_p).sum(dim=1).mean()
        assert torch.isclose(loss, divergence + entropy)


def main():
    random, arrays = np.random.RandomState(0), {}
    dino(arrays, random)
    ibot(arrays, random)
    koleo(arrays, random)
    soft_cross_entropy(arrays, random)
    save("distillation", f"lightly {lightly.__version__}, torch {torch.__version__}, in float64", **arrays)


if __name__ == "__main__":
    main()

"""Image operations by torchvision on tensors, on a small smooth image."""

import numpy as np
import torch
import torchvision
import torchvision.transforms.v2.functional as ops
from seeded import save
from torchvision.transforms import InterpolationMode

HEIGHT, WIDTH = 24, 20
# top, left, height, width, size
BOXES = {"up": (3, 2, 9, 7, 16), "down": (1, 2, 22, 17, 8), "mixed": (0, 5, 24, 6, 12)}
FACTORS = (0.3, 1.0, 1.7)
SHIFTS = (-0.4, -0.1, 0.0, 0.2, 0.5)
BLURS = ((3, 0.1), (3, 2.0), (9, 0.7), (9, 1.6))  # window, sigma


def smooth_image():
    coarse = torch.tensor(np.random.RandomState(4).uniform(size=(3, 6, 5)))
    fine = ops.resize(coarse, [HEIGHT, WIDTH], InterpolationMode.BICUBIC, antialias=True)
    fine = (fine - fine.min()) / (fine.max() - fine.min())
    return (fine * 255).round() / 255  # whole 8-bit values, so that Pillow can be given the same image


def main():
    image = smooth_image()
    made = {}
    for name, (top, left, height, width, size) in BOXES.items():
        for mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
            crop = ops.resized_crop(image, top, left, height, width, [size, size], mode, antialias=True)
            made[f"crop_{name}_{mode.value}"] = crop
    for operation in ("brightness", "contrast", "saturation"):
        for factor in FACTORS:
            made[f"{operation}_{factor}"] = getattr(ops, f"adjust_{operation}")(image, factor)
    made |= {f"hue_{shift}": ops.adjust_hue(image, shift) for shift in SHIFTS}
    made |= {f"blur_{window}_{sigma}": ops.gaussian_blur(image, [window] * 2, [sigma] * 2) for window, sigma in BLURS}
    made |= {
        "greyscale": ops.rgb_to_grayscale(image, num_output_channels=3),
        "solarize": ops.solarize(image, 0.5),
        "flip": ops.horizontal_flip(image),
    }
    arrays = {name: value.permute(1, 2, 0).numpy() for name, value in made.items()}
    boxes = {f"box_{name}": np.array(box) for name, box in BOXES.items()}
    made_by = f"torchvision {torchvision.__version__}, torch {torch.__version__}, in float64"
    save("image_ops", made_by, image=(image.permute(1, 2, 0) * 255).round().numpy().astype(np.uint8), **boxes, **arrays)


if __name__ == "__main__":
    main()

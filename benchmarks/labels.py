"""What pretraining is worth with few labels: probes and fine-tuning with 1, 10 and 100 % of the demo's, several seeds.

    python benchmarks/labels.py [--write] [--seeds=3] [--runs=runs/labels]

Fine-tuned from random init is trained from scratch. Writes a section of docs/results.md. Finished runs are not
repeated.
"""

import json

from floors import cells
from sections import ROOT, machine, paragraph, publish, table
from trials import EVALUATE, make, minutes, over_seeds, parser

METHOD = "simclr"
PROTOCOLS = "linear_1", "linear_10", "linear", "finetune_1", "finetune_10", "finetune"


def main() -> None:
    arguments = parser(__doc__, "labels", source=False).parse_args()
    evaluate, runs, seconds = (*EVALUATE, f"--protocol={','.join(PROTOCOLS)}"), [], []
    for seed in range(arguments.seeds):
        workdir = arguments.runs / f"{METHOD}-{seed}"
        config = ROOT / "configs" / "images" / f"{METHOD}.py"
        seconds.append(make(workdir, config, "demo", {"seed": seed}, evaluate))
        runs.append(json.loads((workdir / "results.json").read_text()))
    training, judging = (minutes(of) for of in zip(*seconds, strict=True))
    head = f"""Made by `python benchmarks/labels.py --write --seeds={arguments.seeds}` with `:demo` of {METHOD}:
        accuracy in percent, {over_seeds(arguments.seeds)}, of the test images. Fine-tuned from
        random init is trained from scratch. CPU minutes: pretraining {training}, the rest {judging}."""
    protocols = runs[-1]["protocols"]
    rows = [[encoder, *cells(runs, encoder)] for encoder in runs[-1]["encoders"]]
    blocks = [
        paragraph(head),
        table(["features", *((protocol, ".1f") for protocol in protocols)], rows),
        "Protocols:",
        "\n".join(f"- {protocol}: {text}." for protocol, text in protocols.items()),
        machine(),
    ]
    publish("results.md", "What few labels give: small photographs", blocks)


if __name__ == "__main__":
    main()

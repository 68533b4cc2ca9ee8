"""The page stands alone, tells what it was given, and never fails because something was not measured."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ssljax.engine import monitors
from ssljax.report import Report, figures, write_report

CLASSES = 10
RESULTS = {
    "step": 375,
    "examples": {"train": 8000, "test": 2000},
    "protocols": {"knn": "k=20, cosine, T<0.1", "linear": "L-BFGS"},
    "encoders": {
        "pretrained": {
            "knn": {"accuracy": 0.571, "standard_error": 0.011},
            "linear": {"accuracy": 0.605, "standard_error": 0.012},
        },
        "random init": {"knn": {"accuracy": 0.358, "standard_error": 0.0107}},
    },
    "margins": {
        "knn": {
            "random init": {"difference": 0.213, "standard_error": 0.0118},
            "raw pixels": {"difference": -0.004, "standard_error": 0.005},
        }
    },
    "tables": {
        "geometry": {
            "measured on": "features of 2000 test images",
            "of": {"pretrained": {"RankMe": {"value": 41.5}}, "raw pixels": {"R<1": {"value": 0.25}}},
            "spectrum": {"pretrained": [1.0, 0.5, 0.25], "raw pixels": [1.0, 0.0]},
        }
    },
}


def rows(count: int) -> list[dict[str, float]]:
    """Metrics of a run that goes well; k-NN only in its last row."""
    metrics = [
        {
            "step": 10 * i,
            "loss": 5 / i,
            "learning_rate": 1e-3 / i,
            "examples_per_second": 500.0 + i,
            "feature_std": 0.5,
            "effective_rank": 9.0 + i / 10,
            "alignment": 1 / i,
            "uniformity": -3 - 1 / i,
        }
        for i in range(1, count + 1)
    ]
    metrics[-1]["knn"] = 0.569
    return metrics


def full_report(classes: int = CLASSES) -> Report:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 16, 12, 3), dtype=np.uint8)
    chosen = rng.integers(0, 60, (4, 6))
    labels = rng.permutation(np.arange(60) % classes)
    kinds = ("pretrained", "raw pixels")
    return Report(
        title="SimCLR · resnet8 · demo",
        config={"batch_size": 256, "method": {"name": "simclr", "unset": None}, "data": {"source": "demo"}},
        metrics=rows(12),
        results=RESULTS,
        panels=("the image and two views", rng.random((5, 3, 16, 12, 3))),
        maps={layout: {kind: rng.normal(size=(60, 2)) for kind in kinds} for layout in ("t-SNE", "PCA")},
        map_images=images,
        map_labels=labels,
        class_names=tuple(f"kind {k}" for k in range(classes)),
        neighbours={kind: images[chosen] for kind in kinds},
        neighbour_labels={kind: labels[chosen] for kind in kinds},
        notes=["2 files could not be decoded."],
        map_texts=tuple(f"folder/{i}.png" for i in range(60)),
        seen=(("What the encoder looks at", "heads above, masks below", rng.random((3, 2, 4, 16, 12, 3))),),
    )


def without_metrics(report: Report) -> Report:
    """The report of a run that logged nothing; drawing curves takes most of the time."""
    return dataclasses.replace(report, metrics=[])


class Page(HTMLParser):
    """The elements that are open at the end, the addresses that the page asks for, and its pictures and their texts."""

    VOID = {"meta", "img", "input"}

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.alts.append(dict(attrs)["alt"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def write(report: Report, workdir) -> str:
    """The HTML of a report, after checks that hold for any."""
    path = write_report(report, workdir)
    assert path == workdir / "report.html"
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert not page.open
    assert not re.search(r"https?://|url\(|@import", html)
    assert not page.tags & {"link", "iframe"}
    assert all(re.match("data:image/(png|webp);base64,", address) for address in page.addresses)
    assert all(page.alts)
    inlined = {base64.b64decode(address.partition(",")[2]) for address in page.addresses}
    assert inlined == {file.read_bytes() for file in (workdir / "figures").iterdir()}
    for picture in inlined:
        image = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
        assert min(image.shape[:2]) > 30
        assert image.std() > 1
    return html


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The workdir and the HTML of a full report."""
    workdir = tmp_path_factory.mktemp("full")
    return workdir, write(full_report(), workdir)


def names(workdir) -> set[str]:
    return {file.stem for file in (workdir / "figures").iterdir()}


def test_full_report(full):
    workdir, html = full
    assert names(workdir) == {
        "views",
        "loss",
        "learning_rate",
        "examples_per_second",
        "knn",
        "feature_std",
        "effective_rank",
        "alignment",
        "uniformity",
        "map_t_SNE_pretrained",
        "map_t_SNE_raw_pixels",
        "map_PCA_pretrained",
        "map_PCA_raw_pixels",
        "sprite",
        "spectrum",
        "What_the_encoder_looks_at",
        "map_images_pretrained",
        "map_images_raw_pixels",
        "neighbours_pretrained",
        "neighbours_raw_pixels",
    }
    for told in (
        "<h1>SimCLR · resnet8 · demo</h1>",
        "method simclr · data demo · 8,000 train and 2,000 test images · 375 steps of 256 images",
        "<b>57.1</b> ± 1.1 %",
        "<b>60.5</b> ± 1.2 %",
        "<b>35.8</b> ± 1.1 %",
        "<td>–</td>",  # random init has no linear probe
        "k-NN</b>: 57.1 % is 21.3 points (18 standard errors) above a random-init encoder and "
        "0.4 points (0.8 standard errors, no clear difference) below raw pixels.",
        "k=20, cosine, T&lt;0.1",
        "<h2>Geometry of the features</h2>",
        "<tr><th scope='row'>RankMe</th><td>41.500</td><td>–</td></tr>",
        "<tr><th scope='row'>R&lt;1</th><td>–</td><td>0.250</td></tr>",
        "the image and two views",
        "heads above, masks below",
        "kind 9",
        "method.name",
        "2 files could not be decoded.",
    ):
        assert told in html
    assert "method.unset" not in html


def test_sections_are_in_order(full):
    assert re.findall("<h2>(.*?)</h2>", full[1]) == [
        "Accuracy",
        "Geometry of the features",
        "What the method sees",
        "Training",
        "Is the representation alive?",
        "What the encoder looks at",
        "A map of the test images",
        "Nearest neighbours",
        "Config",
        "Notes",
    ]


def test_same_report_gives_same_bytes(full, tmp_path):
    assert write(full_report(), tmp_path) == full[1]


def test_without_labels(tmp_path):
    report = without_metrics(full_report())
    report = dataclasses.replace(
        report, results={"step": 375}, map_labels=None, class_names=None, neighbour_labels=None, notes=[]
    )
    html = write(report, tmp_path)
    assert "No accuracy was measured" in html
    assert "class='legend'" not in html
    assert "Green frames" not in html and "query's class" not in html
    assert "<h2>Notes</h2>" not in html
    assert {"map_t_SNE_pretrained", "neighbours_pretrained"} <= names(tmp_path)
    assert "<h2>Training</h2>" not in html


def test_single_metrics_row(tmp_path):
    html = write(dataclasses.replace(full_report(), metrics=rows(1)), tmp_path)
    assert {"loss", "knn", "uniformity"} <= names(tmp_path)
    assert "Online k-NN against step: 56.9 % at step 10, 56.9 % at step 10." in html


def test_metrics_that_a_method_does_not_have(tmp_path):
    metrics = [{"step": row["step"], "loss": row["loss"], "feature_std": 0.5} for row in rows(5)]
    write(dataclasses.replace(full_report(), metrics=metrics), tmp_path)
    assert {"loss", "feature_std"} <= names(tmp_path)
    assert not names(tmp_path) & {"knn", "alignment", "uniformity"}


def test_nothing_but_a_title(tmp_path):
    none = np.zeros((0, 0, 0, 0, 3))
    html = write(Report("empty", {}, [], {}, ("", none), {}, none, None, None, {}, None, []), tmp_path)
    assert re.findall("<h2>(.*?)</h2>", html) == ["Accuracy"]
    assert not names(tmp_path)


@pytest.mark.parametrize(("classes", "legend"), [(2, True), (20, True), (21, False), (45, False)])
def test_legend_only_where_colours_can_be_told_apart(tmp_path, classes, legend):
    html = write(without_metrics(full_report(classes)), tmp_path)
    assert ("class='legend'" in html) == legend
    assert len({tuple(colour) for colour in figures.class_colours(classes)}) == classes


def test_classes_without_names_are_numbered(tmp_path):
    html = write(dataclasses.replace(without_metrics(full_report()), class_names=("only this",)), tmp_path)
    assert "only this" in html and "class 9" in html


def test_texts_are_escaped(tmp_path):
    nasty = "<script>alert('x')</script> & \"$\\frac\""
    report = without_metrics(full_report())
    report = dataclasses.replace(
        report,
        title=nasty,
        config={nasty: nasty, "method": {"name": nasty}},
        results={**RESULTS, "protocols": {"knn": nasty}, "encoders": {nasty: RESULTS["encoders"]["pretrained"]}},
        panels=(nasty, report.panels[1]),
        class_names=(nasty,) * CLASSES,
        maps={nasty: {nasty: report.maps["PCA"]["pretrained"]}},
        map_texts=(nasty + "</script><!--",) * 60,
        neighbours={nasty: report.neighbours["pretrained"]},
        notes=[nasty],
    )
    html = write(report, tmp_path)
    assert nasty not in html and "<script>alert" not in html and "<!--" not in html
    assert "&lt;script&gt;" in html
    assert told(html)["texts"][0] == nasty + "</script><!--"


def told(html: str) -> dict:
    """What the script of the maps knows."""
    return json.loads(re.findall("<script type='application/json' id='told'>(.*?)</script>", html)[0])


def test_each_point_has_its_class_its_text_and_its_picture(full):
    workdir, html = full
    report, known = full_report(), told(full[1])
    assert known["texts"] == list(report.map_texts)
    assert known["classes"] == [f"kind {label}" for label in report.map_labels]
    # The sprite is 8 pictures wide; each of 16 x 12 pixels is enlarged four times, and in the middle of its cell.
    sprite = np.asarray(Image.open(workdir / "figures" / "sprite.webp").convert("RGB")).astype(float)
    assert sprite.shape == (8 * 64, 8 * 64, 3)
    cell = sprite[128:192, 256:320]  # line 2, column 4: the 20th
    expected = report.map_images[20].repeat(4, axis=0).repeat(4, axis=1)
    assert np.corrcoef(cell[:, 8:56].ravel(), expected.ravel())[0, 1] > 0.8
    assert cell[:, :6].mean() > 250


def test_points_are_where_the_script_looks_for_them():
    points = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 0.75]])
    colours = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    drawn = np.asarray(figures.draw_map(points, colours).convert("RGB")).astype(int)
    for (x, y), colour in zip(figures.places(points), colours, strict=True):
        row, column = (np.array([y, x]) * drawn.shape[:2]).astype(int)
        assert drawn[row, column].argmax() == colour.argmax() and drawn[row, column].min() < 100
    np.testing.assert_allclose(figures.places(points)[0], [figures.MAP_MARGIN, 1 - figures.MAP_MARGIN])  # lower left


def test_maps_that_there_are_not_are_said(full, tmp_path):
    assert "pip install umap-learn" in full[1]
    report = without_metrics(full_report())
    maps = {"UMAP" if kind == "PCA" else kind: by for kind, by in report.maps.items()}
    assert "pip install umap-learn" not in write(dataclasses.replace(report, maps=maps), tmp_path)


def test_long_texts_are_cut(tmp_path):
    report = dataclasses.replace(without_metrics(full_report()), map_texts=("long " * 100,) * 60)
    assert len(told(write(report, tmp_path))["texts"][0]) < 250


def test_a_long_run_is_smoothed(full, tmp_path):
    metrics = [{"step": row["step"], "loss": row["loss"]} for row in rows(figures.SMOOTHED_FROM)]
    assert "running mean" in write(dataclasses.replace(full_report(), metrics=metrics), tmp_path)
    assert "running mean" not in full[1]


def test_smoothing_keeps_a_constant_and_its_length():
    values = np.full(501, 3.0)
    np.testing.assert_allclose(figures._smoothed(values), values)


def test_shaded_zones_are_those_of_the_alarms():
    curves = {curve.name: curve for curve in figures.COLLAPSE}
    for name, sign in monitors.SIGNS.items():
        shaded = (None, sign.limit) if sign.above else (sign.limit, None)
        assert (curves[name].alarm_below, curves[name].alarm_above) == shaded


def test_captions_of_curves_hold_for_all_kinds_of_data():
    assert not [curve.name for curve in (*figures.PROGRESS, *figures.COLLAPSE) if "image" in curve.reading]


def test_neighbour_frames_tell_right_from_wrong():
    pictures = np.zeros((1, 3, 64, 64, 3), np.uint8)
    image = np.asarray(figures.draw_neighbours(pictures, np.array([[4, 4, 5]])))
    colours = {tuple(colour) for colour in image.reshape(-1, 3)}
    assert colours == {(0, 0, 0), (255, 255, 255), (0, 0x9E, 0x73), (0xD5, 0x5E, 0)}


def test_image_map_puts_each_image_where_its_point_is():
    points = np.array([[0.0, 0.0], [1.0, 1.0], [0.02, 0.03]])
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (0, 100, 200)])
    image = np.asarray(figures.draw_image_map(points, images, cells=5, side=4))
    assert (image[-4:, :4] == 0).all()  # lower left; the third point falls on the same place, less closely
    assert (image[:4, -4:] == 100).all()
    assert not (image == 200).any()


def test_panels_with_values_out_of_range_and_ragged_rows():
    pictures = np.full((7, 1, 5, 8, 8, 3), np.nan)
    pictures[0] = 7.0
    image = np.asarray(figures.draw_panels(pictures))
    assert set(np.unique(image)) == {0, 255}


def test_lines_of_an_example_stand_below_each_other():
    pictures = np.zeros((1, 2, 3, 112, 112, 3))
    pictures[0, 1, 2] = 1.0
    image = np.asarray(figures.draw_panels(pictures))
    assert image.shape == (2 * 112 + 4, 3 * 112 + 8, 3)
    assert (image[116:, 232:] == 255).all() and (image[:112, 232:] == 0).all()


def test_small_images_are_enlarged_by_a_whole_factor_and_large_ones_fit():
    assert figures._fit(np.zeros((2, 10, 7, 3), np.uint8), 32).shape == (2, 30, 21, 3)
    assert figures._fit(np.zeros((2, 100, 50, 3), np.uint8), 32).shape == (2, 32, 16, 3)

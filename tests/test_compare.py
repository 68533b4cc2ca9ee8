"""Runs side by side: what each reached, what differs, and what cannot be compared."""

import json
import re

import pytest

from ssljax.compare import compare
from ssljax.config import base_config, remember


@pytest.fixture
def write_run(tmp_path):
    """`write_run(name, accuracy, …)` makes the folder of a run that was evaluated."""

    def write(name, accuracy=0.5, *, method="simclr", source="demo", protocol="k = 20", evaluated=True):
        config = base_config(method)
        config.data.source, config.batch_size = source, 100 + len(name)
        workdir = tmp_path / name
        remember(config, workdir)
        metrics = [{"step": step, "loss": 5 / step, "feature_std": 0.5} for step in (1, 2, 30)]
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
        results = {
            "protocols": {"knn": protocol},
            "encoders": {"pretrained": {"knn": {"accuracy": accuracy, "standard_error": 0.011}}},
            "margins": {"knn": {"raw pixels": {"difference": accuracy - 0.4, "standard_error": 0.012}}},
        }
        if evaluated:
            (workdir / "results.json").write_text(json.dumps(results))
        return workdir

    return write


def rows(html: str, heading: str) -> dict[str, list[str]]:
    """The text of the cells below a heading, by that of the first in the row."""
    part = html[html.index(f"<h2>{heading}</h2>") :]
    table = part[: part.index("</table>")]
    found = {}
    for row in re.findall("<tr>(.*?)</tr>", table, re.DOTALL):
        name, *cells = (re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL))
        found[name] = cells
    return found


def test_a_page_names_each_run_and_tells_what_differs(write_run, tmp_path):
    runs = [write_run("one", 0.571), write_run("other", 0.3, method="mae")]
    page = compare(runs, tmp_path / "page.html")
    html = page.read_text(encoding="utf-8")
    both = ["one", "other"]
    assert rows(html, "Accuracy") == {"": both, "k-NN": ["57.1 ± 1.1 %", "30.0 ± 1.1 %"]}
    assert rows(html, "Margins") == {"": both, "k-NN, over raw pixels": ["+17.1 ± 1.2", "−10.0 ± 1.2"]}
    differing = rows(html, "What differs in the configs")
    assert differing[""] == ["one", "other"] and differing["batch_size"] == ["103", "105"]
    assert differing["method.name"] == ["simclr", "mae"] and differing["method.norm_pix"][0] == "–"
    assert "data.source" not in differing and "cannot be compared" not in html
    assert html.count("<img") == 2 and "Loss against step: 5.000 at step 1, 0.167 at step 30." in html
    assert not re.search(r"https?://|url\(|@import|<script", html)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["page.html"]


def test_tables_of_protocols_with_several_numbers_stand_side_by_side(write_run, tmp_path):
    runs = [write_run("a"), write_run("b")]
    path = runs[0] / "results.json"
    number = {"value": 0.25, "standard_error": 0.01}
    other = {"value": 0.5}
    table = {"of": {"pretrained": {"RankMe": number}, "raw pixels": {"RankMe": other}}, "measured on": "10 test images"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tables": {"geometry": table}}))
    html = compare(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert rows(html, "Geometry of the features") == {"": ["a", "b"], "RankMe": ["0.250 ± 0.010", "–"]}
    assert "<b>raw pixels</b>" in html and "<td>0.500</td>" in html and "10 test images." in html


def test_what_cannot_be_compared_is_said(write_run, tmp_path):
    runs = [write_run("a", source="npz:/one.npz"), write_run("b", source="npz:/two.npz", protocol="k = 5")]
    html = compare(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The data is not the same, so that accuracies cannot be compared: npz:/one.npz, npz:/two.npz." in html
    assert "is not the same for all runs, so that accuracies cannot be compared: k = 20; or k = 5." in html


def test_runs_of_one_name_are_called_by_their_paths(write_run, tmp_path):
    html = compare([write_run("a/run"), write_run("b/run")], tmp_path / "page.html").read_text(encoding="utf-8")
    assert rows(html, "Accuracy")[""] == [str(tmp_path / "a/run"), str(tmp_path / "b/run")]


def test_what_was_found_on_other_data_is_compared_by_its_folder(write_run, tmp_path):
    folders = []
    for name, accuracy in (("a", 0.4), ("b", 0.6)):
        folder = write_run(name) / "on" / "npz-other.npz"
        folder.mkdir(parents=True)
        cell = {"accuracy": accuracy, "standard_error": 0.01}
        found = {"data": "npz:/other.npz", "protocols": {"knn": "k"}, "encoders": {"pretrained": {"knn": cell}}}
        (folder / "results.json").write_text(json.dumps(found))
        folders.append(folder)
    html = compare(folders, tmp_path / "page.html").read_text(encoding="utf-8")
    assert rows(html, "Accuracy")["k-NN"] == ["40.0 ± 1.0 %", "60.0 ± 1.0 %"]
    mixed = compare([folders[0], tmp_path / "b"], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "The data is not the same, so that accuracies cannot be compared: npz:/other.npz, demo." in mixed


def test_names_are_escaped(write_run, tmp_path):
    html = compare([write_run("<b>a"), write_run("c")], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;a" in html and "<b>a" not in html


def test_what_is_wrong_is_said(write_run, tmp_path):
    good, page = write_run("good"), tmp_path / "page.html"
    with pytest.raises(ValueError, match="two runs or more"):
        compare([good], page)
    with pytest.raises(ValueError, match="good is given twice"):
        compare([good, tmp_path / "." / "good"], page)
    with pytest.raises(ValueError, match="nowhere holds no run"):
        compare([good, tmp_path / "nowhere"], page)
    bare = write_run("bare", evaluated=False)
    with pytest.raises(ValueError, match=f"bare was not evaluated: run `python -m ssljax.evaluate --workdir={bare}`"):
        compare([good, bare], page)
    (bare / "results.json").write_text("{")
    with pytest.raises(ValueError, match="results.json is damaged"):
        compare([good, bare], page)
    with pytest.raises(ValueError, match="there is no folder .*missing to write page.html into"):
        compare([good, write_run("better")], tmp_path / "missing" / "page.html")
    assert not page.exists()

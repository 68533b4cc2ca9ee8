"""The launcher from end to end: whole runs, broken runs, and runs that go on."""

import json
import os
import shutil
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest

import ssljax.train as launcher
from ssljax.build import build_source
from ssljax.config import recall, remember
from ssljax.data.pipeline import all_examples
from ssljax.data.sources import DataError
from ssljax.engine import trainer
from ssljax.engine.checkpoint import METRICS
from ssljax.engine.logs import read_metrics
from ssljax.engine.mesh import make_mesh
from ssljax.methods.images.simclr import SimCLR

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def shortened(config, steps=6):
    """`config` as a run of a few steps that logs and saves every other one."""
    config.steps = steps
    config.log.every = config.checkpoint.every = 2
    config.evaluate.update(every=4, train_examples=64, test_examples=32, k=5)
    return config


def losses(workdir):
    return {row["step"]: row["loss"] for row in read_metrics(workdir)}


class Killed(BaseException):
    pass


def test_killed_and_resumed_is_equal_to_the_bit(config, tmp_path, monkeypatch, final_state, assert_equal_to_the_bit):
    """Data, draws, optimiser, queues and metrics: a run that dies at step 5 ends as one that does not.

    Those that keep something for all images or of earlier batches are spread over four devices.
    """
    config = shortened(config)
    config.evaluate.every = 0
    remembers = {"queue", "memory", "bank_momentum"} & {*config.method}
    mesh = None if remembers else make_mesh(1, 1, jax.devices()[:1])
    # All that moves: AdamW's moments, the schedule of the weight decay, what is frozen for a step, a late queue.
    config.optimizer.update(name="adamw", learning_rate=1e-3, weight_decay=0.04, weight_decay_final=0.4)
    config.optimizer.freeze_epochs = 1e-6
    if "queue_start" in config.method:
        config.method.queue_start = 0.0
    build_run, built = launcher.build_run, []

    def built_once(*args, **options):
        """All are of one config: what is compiled for the first run serves the others."""
        built.extend([] if built else [build_run(*args, **options, mesh=mesh)])
        return built[0]

    monkeypatch.setattr(launcher, "build_run", built_once)
    assert launcher.train(config, tmp_path / "whole") == 0

    batches = launcher.train_batches

    def dying(*args, **options):
        for i, batch in enumerate(batches(*args, **options)):
            if i == 4:
                raise Killed
            yield batch

    monkeypatch.setattr(launcher, "train_batches", dying)
    with pytest.raises(Killed):
        launcher.train(config, tmp_path / "broken")
    assert max(losses(tmp_path / "broken")) == 4
    monkeypatch.setattr(launcher, "train_batches", batches)
    assert launcher.train(config, tmp_path / "broken") == 0

    abstract = built[0].abstract
    assert_equal_to_the_bit(final_state(tmp_path / "whole", abstract), final_state(tmp_path / "broken", abstract))
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    assert [row["step"] for row in read_metrics(tmp_path / "broken")] == [2, 4, 6]


@pytest.fixture
def simclr(config):
    """For what one method shows as well as all."""
    return shortened(config)


only_simclr = pytest.mark.parametrize("name", ["simclr"], indirect=True)


@only_simclr
def test_a_workdir_of_another_config_is_left_alone(simclr, tmp_path, final_state, assert_equal_to_the_bit):
    launcher.train(shortened(simclr, steps=2), tmp_path)
    before = final_state(tmp_path)
    simclr.method.temperature = 0.3
    with pytest.raises(ValueError, match=r"another config: method.temperature is 0.5 there and 0.3 here"):
        launcher.train(simclr, tmp_path)
    assert_equal_to_the_bit(before, final_state(tmp_path))
    simclr.method.temperature = 0.5
    simclr.log.every = 1  # how it runs, not what it computes
    assert launcher.train(simclr, tmp_path) == 0


@pytest.mark.parametrize("name", ["data2vec"], indirect=True)
def test_a_run_that_is_beyond_help_is_stopped(config, tmp_path):
    config = shortened(config)
    config.method.update(collapse_after=3, least_target_std=10.0)
    with pytest.raises(
        trainer.TrainingStopped, match=r"stopped at step 4: target_std is 0\.\d+, below 10.0: all patches have"
    ):
        launcher.train(config, tmp_path)


@only_simclr
def test_the_loop_does_not_wait_for_the_device_and_compiles_once(simclr, tmp_path, monkeypatch):
    """Metrics are fetched when they are logged and at no other time, and after the first step nothing is compiled; what
    saves a state has been compiled by a run before. A step is traced once, to see that all fits together and to be
    compiled."""
    traced, loss = [], SimCLR.loss
    monkeypatch.setattr(SimCLR, "loss", lambda *args: (traced.append(1), loss(*args))[1])
    launcher.train(shortened(simclr, steps=2), tmp_path / "before")
    assert len(traced) == 1
    fetched, compiled = [], []
    device_get = jax.device_get
    monkeypatch.setattr(trainer.jax, "device_get", lambda x: (fetched.append(1), device_get(x))[1])
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(len(seen)) if name.endswith("backend_compile_duration") else None
    )
    batches, seen = launcher.train_batches, []

    def counted(*args, **options):
        for batch in batches(*args, **options):
            seen.append(1)
            yield batch

    monkeypatch.setattr(launcher, "train_batches", counted)
    simclr.steps, simclr.log.every, simclr.checkpoint.every, simclr.evaluate.every = 9, 3, 0, 0
    launcher.train(simclr, tmp_path / "watched")
    assert len(fetched) == 3
    assert compiled and max(compiled) <= 1, f"compiled before the steps {compiled}"


@only_simclr
def test_logs(simclr, tmp_path, capsys):
    simclr.evaluate.online = ("linear", "knn", "geometry", "same_class", "ridge_10")
    launcher.train(simclr, tmp_path)
    row = read_metrics(tmp_path)[-1]
    wanted = {
        "loss",
        "learning_rate",
        "feature_std",
        "effective_rank",
        "alignment",
        "uniformity",
        "examples_per_second",
    }
    assert wanted <= set(row) and 0 <= row["knn"] <= 1
    assert 0 <= row["linear"] <= 1 <= row["test_rankme"] < 33 and {"test_feature_std", "test_uniformity"} <= set(row)
    assert 0 <= row["same_class_r_1"] <= 1 <= row["test_lidar"] and row["test_alignment"] > 0
    # The first of them says which checkpoint is the best.
    assert json.loads((tmp_path / "checkpoints" / "6" / METRICS).read_text()) == {"linear": row["linear"]}
    assert list((tmp_path / "tensorboard").glob("events*"))
    out = capsys.readouterr().out
    assert "step 6/6  loss" in out and "left" in out and "k-NN" in out
    assert "ridge_10" not in row and out.count("note: no online ridge_10: 10 shots need as many labelled") == 1
    assert json.loads((tmp_path / "config.json").read_text())["method"]["name"] == "simclr"


@only_simclr
def test_weights_and_biases_is_asked_for_by_name(simclr, tmp_path, monkeypatch):
    simclr.log.wandb = "a-project"
    with pytest.raises(ValueError, match="pip install wandb"):
        launcher.train(simclr, tmp_path)

    started, logged = [], []
    run = SimpleNamespace(log=lambda metrics, step: logged.append(step), finish=lambda: logged.append("finished"))
    fake = ModuleType("wandb")
    fake.init = lambda **options: (started.append(options), run)[1]
    fake.__spec__ = ModuleSpec("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    launcher.train(simclr, tmp_path)
    assert started[0]["id"] == (tmp_path / "wandb_id").read_text()
    assert started[0]["project"] == "a-project" and started[0]["config"]["method"]["name"] == "simclr"
    assert logged == [2, 4, 6, "finished"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--config.batch_size=30"], "a batch of 30 cannot be dealt equally to 4 devices: try --config.batch_size=32"),
        (["--config.batch_sise=32"], "there is no field 'config.batch_sise'; did you mean 'batch_size'?"),
        (["--config.train.steps=3"], "there is no field 'config.train.steps'; did you mean 'config.steps'?"),
        (["--config.method.name=nosuch"], "method 'nosuch' is unknown; use one of simclr"),
        (["--config.encoder.patch=4"], "encoder 'resnet8' has no field 'patch'"),
        (["--config.mesh.fsdp=0"], "a mesh of data=-1 by fsdp=0 does not fill 4 devices"),
        (["--config.train.microbatch=6"], "--config.train.microbatch=6 must divide the batch of 256 and be a multiple"),
        (["--config.profile=5"], "--config.profile"),
        (["--config.profile=5,2"], "--config.profile=(5, 2) must be the first and the last step to trace"),
        (["--config.views.interpolation=nearest"], "'nearest' is unknown; use bilinear or bicubic"),
        (["--config.views.scale=(1.0,0.2)"], "views.scale (1.0, 0.2) must be"),
        (["--config.data.canvas=-3"], "--config.data.canvas=-3 must be a side in pixels"),
        (["--config.evaluate.online=('nosuch',)"], "--config.evaluate.online=('nosuch',) must be some of knn, nn1"),
        (["--config.seed=-1"], "--config.seed=-1 must not be negative"),
        (["--config.data.source=folder:nowhere"], "nowhere"),
    ],
    ids=lambda case: case[0] if isinstance(case, list) else "",
)
def test_user_errors_are_one_sentence(arguments, sentence, tmp_path):
    """Exit code not 0, one line, and no workdir made."""
    command = [sys.executable, "-m", "ssljax.train", f"--config={ROOT}/configs/images/simclr.py:demo"]
    command += [f"--workdir={tmp_path / 'run'}", *arguments]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = subprocess.run(command, env=ENVIRONMENT | flags, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert sentence in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_field_is_unset_on_the_command_line(tmp_path):
    """MoCo's demo sets `bn_groups`, which a ViT does not have: None takes it back."""
    command = [sys.executable, "-m", "ssljax.train", f"--config={ROOT}/configs/images/moco_v2.py:demo"]
    fields = "encoder.name=vit_micro encoder.bn_groups=None steps=1 batch_size=16 evaluate.every=0 encoder.depth=1"
    command += [f"--config.{field}" for field in fields.split()] + [f"--workdir={tmp_path}"]
    subprocess.run(command, env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)
    assert json.loads((tmp_path / "config.json").read_text())["encoder"]["bn_groups"] is None


@pytest.mark.parametrize("name", ["npid"], indirect=True)
def test_several_steps_at_once_of_examples_that_lie_on_the_devices_are_the_same_steps(
    config, tmp_path, monkeypatch, final_state, assert_equal_to_the_bit
):
    """On a mesh of 2 x 2, whether the examples come with each step or not, and by how many the steps are called; and
    such a run that dies goes on to the bit."""
    config = shortened(config, steps=7)
    config.mesh.update(data=2, fsdp=2)
    config.evaluate.every = 0
    for name, resident, at_once in (
        ("plain", False, 1),
        ("resident", True, 1),
        ("called", False, 2),
        ("both", True, 2),
    ):
        config.data.resident, config.train.steps_per_call = resident, at_once
        launcher.train(config, tmp_path / name)
        assert list(losses(tmp_path / name)) == [2, 4, 6, 7]
        states = final_state(tmp_path / "plain"), final_state(tmp_path / name)
        for a, b in zip(*map(jax.tree.leaves, states), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

    batches = launcher.index_batches

    def dying(*args, **options):
        for i, batch in enumerate(batches(*args, **options)):
            if i == 5:
                raise Killed
            yield batch

    monkeypatch.setattr(launcher, "index_batches", dying)
    with pytest.raises(Killed):
        launcher.train(config, tmp_path / "broken")
    monkeypatch.setattr(launcher, "index_batches", batches)
    assert launcher.train(config, tmp_path / "broken") == 0
    assert_equal_to_the_bit(final_state(tmp_path / "both"), final_state(tmp_path / "broken"))
    assert losses(tmp_path / "both") == losses(tmp_path / "broken")


@only_simclr
def test_what_cannot_be_called_at_once_or_lie_on_a_device(simclr, load_small, tmp_path):
    simclr.train.steps_per_call, simclr.log.every = 4, 6
    with pytest.raises(ValueError, match=r"log.every=6 must be a multiple of --config.train.steps_per_call=4"):
        launcher.train(simclr, tmp_path)
    simclr.train.steps_per_call = 0
    with pytest.raises(ValueError, match="train.steps_per_call=0 must be at least 1"):
        launcher.train(simclr, tmp_path)
    with pytest.raises(DataError, match="more than the 0.0 GiB that it may take of a device: set --config"):
        all_examples(build_source(simclr, "train"), most=1000)
    speech = load_small("cpc")
    speech.data.resident = True
    with pytest.raises(DataError, match="audio, length is drawn anew each time, which cannot lie on a device"):
        launcher.train(speech, tmp_path)
    assert not any(tmp_path.iterdir())


@only_simclr
def test_a_step_that_is_not_finite_is_found_among_several(simclr, tmp_path):
    simclr.data.resident, simclr.train.steps_per_call = True, 2
    simclr.optimizer.update(name="sgd", learning_rate=1e30, warmup_steps=0)
    with pytest.raises(trainer.TrainingStopped, match=r"not finite at step \d+.*post-mortem"):
        launcher.train(simclr, tmp_path)


@only_simclr
def test_a_profile_of_chosen_steps(simclr, tmp_path):
    """A trace that XProf reads, and none of steps that the run does not have."""
    simclr.profile = (3, 4)
    launcher.train(simclr, tmp_path / "whole")
    (trace,) = (tmp_path / "whole" / "profile").rglob("*.xplane.pb")
    planes = [plane.name for plane in jax.profiler.ProfileData.from_file(str(trace)).planes]
    assert any("CPU" in name for name in planes), planes
    simclr.profile = (7, 9)
    launcher.train(simclr, tmp_path / "past")
    assert not (tmp_path / "past" / "profile").exists()


@only_simclr
def test_input_and_device_time_and_a_warning_where_the_input_is_slow(simclr, tmp_path, monkeypatch, capsys):
    launcher.train(simclr, tmp_path / "fast")
    row = read_metrics(tmp_path / "fast")[-1]
    assert 0 < row["device_seconds"] and 0 <= row["input_seconds"] < row["seconds_per_step"]
    assert "bottleneck" not in capsys.readouterr().out

    batches = launcher.train_batches

    def slow(*args, **options):
        for batch in batches(*args, **options):
            time.sleep(0.5)
            yield batch

    monkeypatch.setattr(launcher, "train_batches", slow)
    launcher.train(simclr, tmp_path / "slow")
    assert read_metrics(tmp_path / "slow")[-1]["input_seconds"] > 0.4
    printed = capsys.readouterr().out
    assert printed.count("the input is the bottleneck") == printed.count("where the kind of data has them") == 1


@pytest.mark.parametrize(
    "name, fields, said",
    [
        ("simclr", {"optimizer": {"warmup_epochs": 1.0}}, "warmup_epochs is 500 steps, longer than the run"),
        ("dino", {"optimizer": {"warmup_epochs": 0.0, "freeze_epochs": 2}}, "freeze_epochs is 1000 steps"),
        ("dino", {"optimizer": {"warmup_epochs": 0.0, "freeze_epochs": 2, "freeze": ()}}, None),
        ("dino", {"method": {"warmup_temperature_epochs": 3}}, "lower --config.method.warmup_temperature_epochs"),
        ("swav", {"method": {"queue": 64, "queue_start": 2.0}}, "queue_start is 1000 steps"),
        ("swav", {"method": {"queue": 0, "queue_start": 2.0}}, None),
        ("npid", {"optimizer": {"schedule": "steps", "milestones": (1, 2)}}, "the learning rate never falls"),
    ],
)
def test_what_would_begin_after_the_run_is_said(load_config, name, fields, said):
    config = load_config(ROOT / "configs" / "images" / f"{name}.py", "demo")
    config.data.examples, config.batch_size = 4000, 8
    config.optimizer.update(warmup_epochs=0.0, freeze_epochs=0.0)
    for part, values in fields.items():
        config[part].update(values)
    notes = launcher._too_late(config, 500)
    assert [said in note for note in notes] == [True] if said else notes == []
    assert launcher._too_late(config, 2000) == []


@only_simclr
def test_microbatches_are_said_to_change_batch_norm(simclr, tmp_path, capsys):
    simclr.train.microbatch = 8
    launcher.train(simclr, tmp_path / "batch")
    assert "BatchNorm's statistics are of each microbatch of 8 examples" in capsys.readouterr().out
    simclr.encoder.norm = "group"
    launcher.train(simclr, tmp_path / "group")
    assert "each microbatch" not in capsys.readouterr().out


def test_what_was_compiled_is_read_back(tmp_path):
    """The second process compiles nothing; without the floor of a second, under which compilations are not kept."""
    command = [sys.executable, "-m", "ssljax.train", f"--config={ROOT}/configs/images/mae.py:demo"]
    command += [f"--config.{field}" for field in "steps=2 batch_size=8 evaluate.every=0 encoder.depth=1".split()]
    environment = ENVIRONMENT | {"XDG_CACHE_HOME": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    kept = []
    for name in ("first", "second"):
        subprocess.run([*command, f"--workdir={tmp_path / name}"], env=environment, check=True, capture_output=True)
        kept.append({path.name for path in (tmp_path / "ssljax").glob("*-cache")})
    assert kept[0] and kept[0] == kept[1]


@only_simclr
def test_a_run_of_before_there_was_a_field_that_says_how_is_recalled(simclr, tmp_path):
    """With the field's default; without one that says what, it is another version's."""
    remember(simclr, tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["evaluate"]["online"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert recall(tmp_path).evaluate.online == ("knn",)
    del saved["optimizer"]["momentum"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="another version of ssljax, which had no optimizer.momentum"):
        recall(tmp_path)


@only_simclr
def test_what_may_change_when_a_run_goes_on(simclr, tmp_path):
    """What says how it is computed; and everything as long as nothing was saved."""
    remember(simclr, tmp_path)
    simclr.optimizer.learning_rate = 0.1
    remember(simclr, tmp_path)
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    simclr.mesh.fsdp, simclr.encoder.remat = 2, "blocks"
    remember(simclr, tmp_path)
    simclr.train.microbatch = 8  # BatchNorm's statistics would be of other examples
    with pytest.raises(ValueError, match="train.microbatch is 0 there and 8 here"):
        remember(simclr, tmp_path)
    simclr.train.microbatch, simclr.encoder.norm = 0, "group"
    shutil.rmtree(tmp_path / "checkpoints")
    remember(simclr, tmp_path)
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    simclr.train.microbatch = 8
    remember(simclr, tmp_path)


@pytest.mark.parametrize("contents, wrong", [("import nosuch", "ModuleNotFoundError"), ("def f(:", "SyntaxError")])
def test_a_config_file_that_cannot_be_run(contents, wrong, tmp_path):
    (tmp_path / "mine.py").write_text(contents)
    command = [sys.executable, "-m", "ssljax.train", "--config=mine.py", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"mine.py cannot be run ({wrong}: " in done.stderr

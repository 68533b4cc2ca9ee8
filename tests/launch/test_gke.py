"""launch/gke, with a kubectl that keeps what it is given."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = ["--image=europe-docker.pkg.dev/p/r/ssljax:tpu", "--bucket=gs://runs-of-ours/"]
FLAGS = ["--config=configs/images/mae.py:demo", "--workdir=/runs/mae"]
KUBECTL = """#!/bin/sh
printf '%s\\n' "$@" >arguments
cat >manifest
exit "${KUBECTL_EXIT:-0}"
"""


@pytest.fixture
def gke(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin/kubectl"
    kubectl.write_text(KUBECTL)
    kubectl.chmod(0o755)

    def run(*arguments: str, path: str = f"{tmp_path}/bin:{os.environ['PATH']}", **environ: str):
        environ = os.environ | environ | {"PATH": path}
        command = [str(ROOT / "launch/gke"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)

    return run


def hosts(jobset: dict) -> dict:
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def test_one_run_is_one_jobset(gke, tmp_path: Path):
    odd = '--config.name=it\'s "a" \\ $ARGS $(HOME) & ü\n\tx: #'
    assert gke("mae", *OPTIONS, "--", *FLAGS, odd).returncode == 0
    assert (tmp_path / "arguments").read_text().split() == ["apply", "--filename=-"]
    jobset = yaml.safe_load((tmp_path / "manifest").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"]["name"] == "mae"

    job = hosts(jobset)
    assert job["parallelism"] == job["completions"] == 4  # a 4x4 topology has 16 chips
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    (container,) = pod["containers"]
    assert container["image"] == "europe-docker.pkg.dev/p/r/ssljax:tpu"
    assert container["command"] == ["python", "-m", "ssljax.train"]
    assert container["args"] == [*FLAGS, odd.replace("$(", "$$(")]  # as Kubernetes wants it
    assert container["resources"] == {"requests": {"google.com/tpu": 4}, "limits": {"google.com/tpu": 4}}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["runs"]["csi"]["volumeAttributes"]["bucketName"] == "runs-of-ours"
    assert {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}["runs"] == "/runs"
    assert job["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


def test_an_error_ends_the_run_and_anything_else_starts_all_hosts_again(gke, tmp_path: Path):
    gke("mae", *OPTIONS, "--restarts=7", "--", *FLAGS)
    jobset = yaml.safe_load((tmp_path / "manifest").read_text())
    policy, job = jobset["spec"]["failurePolicy"], hosts(jobset)
    assert policy["maxRestarts"] == 7 and job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["operator"] == "In"
    assert rule["onExitCodes"]["values"] == [1]
    assert rule["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    assert [(r["action"], r["onJobFailureReasons"]) for r in policy["rules"]] == [("FailJobSet", ["PodFailurePolicy"])]


def test_options(gke, tmp_path: Path):
    options = "--accelerator tpu-v5p-slice --topology=2x2x4 --chips=4 --spot --account=me --claim=nfs".split()
    assert gke("mae", "--image=i", *options, "--module", "ssljax.evaluate", "--", *FLAGS).returncode == 0
    job = hosts(yaml.safe_load((tmp_path / "manifest").read_text()))
    pod = job["template"]["spec"]
    assert job["parallelism"] == 4 and pod["serviceAccountName"] == "me"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["containers"][0]["command"][-1] == "ssljax.evaluate"
    assert pod["volumes"][0] == {"name": "runs", "persistentVolumeClaim": {"claimName": "nfs"}}
    assert job["template"]["metadata"]["annotations"] == {}


def test_a_dry_run_prints_a_command_that_does_the_same(gke, tmp_path: Path):
    process = gke("mae", *OPTIONS, "--dry-run", "--", *FLAGS, "--config.name=it's $HOME")
    assert process.returncode == 0 and not (tmp_path / "manifest").exists()
    environ = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", process.stdout], cwd=tmp_path, env=environ, check=True)
    pasted = (tmp_path / "manifest").read_text()
    gke("mae", *OPTIONS, "--", *FLAGS, "--config.name=it's $HOME")
    assert (tmp_path / "manifest").read_text() == pasted


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("", "the first word is the NAME"),
        ("--image=i", "the first word is the NAME"),
        ("Mae --image=i --bucket=b", "the first word is the NAME"),
        ("mae --bucket=b", "--image=IMAGE is needed"),
        ("mae --image=i", "--bucket=BUCKET or --claim"),
        ("mae --image=i --bucket=b --claim=c", "exclude each other"),
        ("mae --image={x} --bucket=b", "'{x}' cannot be"),
        ("mae --image=i --bucket=b --topology=4", "'4' is not"),
        ("mae --image=i --bucket=b --topology=1x2 -- --workdir=/runs/a", "has 2 chips"),
        ("mae --image=i --bucket=b --chips=0", "whole numbers"),
        ("mae --image=i --bucket=b --config=c", "comes after --"),
        ("mae --image=i --bucket=b --spot --bucket", "--bucket needs a value"),
        ("mae --image=i --bucket=b -- --workdir=/tmp/x", "--workdir=/runs/"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(gke, arguments: str, sentence: str):
    process = gke(*arguments.split())
    assert (process.returncode, process.stdout) == (1, "")
    assert sentence in process.stderr and process.stderr.count("\n") == 1


def test_kubectl_is_missing_or_refuses(gke, tmp_path: Path):
    assert "is JobSet installed" in gke("mae", *OPTIONS, "--", *FLAGS, KUBECTL_EXIT="1").stderr
    (tmp_path / "bin/kubectl").unlink()
    for tool in ("bash", "readlink"):
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or "")
    process = gke("mae", *OPTIONS, "--", *FLAGS, path=f"{tmp_path}/bin")
    assert process.returncode == 1 and "kubectl is not installed" in process.stderr


def test_usage(gke):
    assert gke("-h").stdout.startswith("Usage:")

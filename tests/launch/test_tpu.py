"""launch/tpu and launch/tpu-worker, on two workers that are folders of this machine, with a gcloud that records."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# CLOUD holds what the cloud knows: the states that a description goes through, and the workers' homes.
GCLOUD = """#!{python} -IS
import json, os, shutil, signal, subprocess, sys
from pathlib import Path

cloud = Path(os.environ["CLOUD"])
arguments = sys.argv[1:]
with open(cloud / "calls", "a") as calls:
    calls.write(json.dumps(["gcloud", *arguments]) + "\\n")
group, verb = (arguments[2], arguments[3]) if arguments[0] == "compute" else (arguments[1], arguments[2])
homes, resource, states = [cloud / "w-0", cloud / "w-1"], cloud / "resource", cloud / "states"

def end_workers():
    for home in homes:
        if (home / ".ssljax/pid").exists():
            try:
                os.kill(int((home / ".ssljax/pid").read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(home, ignore_errors=True)

if (cloud / "broken").exists():
    sys.exit("ERROR: (gcloud) PERMISSION_DENIED: no access")
elif (group, verb) == ("queued-resources", "describe"):
    if not resource.exists():
        sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found")
    now, *later = states.read_text().split()
    states.write_text(" ".join(later or [now]))
    print(now)
elif (group, verb) == ("queued-resources", "create"):
    end_workers()
    for home in homes:
        home.mkdir()
    resource.touch()
    states.write_text((cloud / "fresh").read_text())
elif (group, verb) == ("queued-resources", "delete"):
    end_workers()
    resource.unlink()
elif (group, verb) == ("tpu-vm", "describe"):
    print((cloud / "node").read_text())
elif (group, verb) == ("tpu-vm", "scp"):
    for home in homes:
        shutil.copy(arguments[4], home / arguments[5].partition(":")[2])
elif (group, verb) == ("tpu-vm", "ssh"):
    if (cloud / "unreachable").exists():
        sys.exit("ssh: connect to host: Connection timed out")
    options = dict(a.split("=", 1) for a in arguments if a.startswith(("--command=", "--worker=")))
    chosen = homes if options["--worker"] == "all" else [homes[int(options["--worker"])]]
    print("Using ssh batch size of 2.", file=sys.stderr)
    commands = [
        subprocess.Popen(
            ["bash", "-c", options["--command"]], cwd=home, env=os.environ | dict(HOME=str(home), HOSTNAME=home.name)
        )
        for home in chosen
    ]
    sys.exit(max(command.wait() for command in commands))
elif (group, verb) == ("buckets", "describe"):
    print((cloud / "hierarchical").read_text())
else:
    sys.exit(f"unexpected: {{arguments}}")
"""
ENVIRONMENT = """
python=$root/.venv/bin/python
fail() {{ printf '%s\\n' "$1" >&2; exit 1; }}
find_python() {{ :; }}
environment() {{
  mkdir -p "${{python%/*}}"
  ln -sfn '{python}' "$python"
  echo "environment $*" >>"$HOME/installed"
}}
"""
PYTHON = """#!/bin/bash
[[ $2 != pip ]] || exec echo "$*" >>"$HOME/installed"
exec '{python}' -S "$@"
"""
# The k-th start of a worker does what the k-th word of the plan says.
TRAIN = """
import json, os, signal, sys, time
from pathlib import Path

cloud, host = Path(os.environ["CLOUD"]), os.environ["HOSTNAME"]
starts = cloud / f"starts-{host}"
with starts.open("a") as file:
    file.write(json.dumps([sys.argv[1:], os.getcwd()]) + "\\n")
plan = (cloud / "plan").read_text().split()
outcome = plan[min(len(starts.read_text().splitlines()), len(plan)) - 1].split("/")[-1 if host == "w-1" else 0]
print(host, "does", outcome, flush=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
if outcome == "preempted":
    (cloud / "states").write_text("SUSPENDING SUSPENDED")
if outcome == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if outcome.isdigit():
    sys.exit(int(outcome))
time.sleep(60)
"""
FLAGS = ["--config=configs/mae.py:demo", "--workdir=/mnt/b/mae"]


class Cloud:
    def __init__(self, home: Path):
        self.home, self.clone, self.bin = home / "cloud", home / "my clone", home / "bin"
        self.script = self.clone / "launch/tpu"
        for folder in (self.home, self.clone / "launch", self.bin):
            folder.mkdir(parents=True)
        for name in ("tpu", "tpu-worker"):
            shutil.copy(ROOT / "launch" / name, self.clone / "launch")
        python = self.program("stand-in-python", PYTHON)
        self.program("gcloud", GCLOUD)
        (self.clone / "launch/environment.sh").write_text(ENVIRONMENT.format(python=python))
        (self.clone / "ssljax").mkdir()
        (self.clone / "ssljax/train.py").write_text(TRAIN)
        self.git("init", "-q")
        self.git("add", ".")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")
        self.set(fresh="CREATING WAITING_FOR_RESOURCES ACTIVE", plan="0", hierarchical="True", node="READY")
        self.environ = os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}", "CLOUD": str(self.home)}
        self.environ |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "STOP_SECONDS": "20"}
        for name in ("TPU_ZONE", "TPU_PROJECT", "TPU_TYPE"):
            self.environ.pop(name, None)

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text.format(python=sys.executable))
        path.chmod(0o755)
        return path

    def git(self, *arguments: str):
        subprocess.run(["git", *arguments], cwd=self.clone, check=True)

    def set(self, **files: str):
        for name, text in files.items():
            (self.home / name).write_text(text)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen:
        options = ["--poll=0.05", "--backoff=0"] if len(arguments) > 1 else []
        arguments = (*arguments[:2], *options, *arguments[2:])
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [self.script, *arguments], env=self.environ | environ, text=True, stdout=pipe, stderr=pipe,
            start_new_session=True,
        )  # fmt: skip

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        out, err = (process := self.start(*arguments, **environ)).communicate(timeout=50)
        return process.returncode, out, err

    def calls(self) -> list[list[str]]:
        file = self.home / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def verbs(self) -> list[str]:
        """Those that change something, with the worker's own verbs."""
        verbs = [re.sub(r".*tpu-worker (\w+).*", r"\1", c[-1]) if "ssh" in c else c[4] for c in self.calls()]
        return [verb for verb in verbs if verb not in ("describe", "status")]

    def starts(self, worker: int) -> list:
        file = self.home / f"starts-w-{worker}"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def wait_for_starts(self, count: int):
        end = time.monotonic() + 20
        while min(len(self.starts(0)), len(self.starts(1))) < count:
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path)
    yield cloud
    for file in cloud.home.glob("w-*/.ssljax/pid"):
        try:
            os.kill(int(file.read_text()), signal.SIGKILL)
        except ProcessLookupError:
            pass


def unique(commands: list[list[str]]) -> list[list[str]]:
    return list({json.dumps(command): command for command in commands}.values())


def test_create_waits_until_the_tpu_is_there_and_may_be_given_again(cloud: Cloud):
    code, out, err = cloud.run("create", "pod", "--zone=z", "--project", "p", "--type=v6e-16", "--spot")
    assert code == 0
    where = ["--zone=z", "--project=p"]
    create = "gcloud compute tpus queued-resources create pod --node-id=pod --accelerator-type=v6e-16".split()
    create += ["--runtime-version=v2-alpha-tpuv6e", "--spot", "--quiet", *where]
    assert [call for call in cloud.calls() if "create" in call] == [create]
    assert re.findall(r"pod: (\w+)", err) == ["creating", "waiting_for_resources", "active"]

    code, _, err = cloud.run("create", "pod")
    assert (code, err) == (0, "pod is there.\n")
    assert cloud.verbs() == ["create"]

    cloud.set(states="PROVISIONING ACTIVE")
    code, _, err = cloud.run("create", "pod")
    assert code == 0 and "asked for before" in err and cloud.verbs() == ["create"]


def test_create_deletes_what_is_left_of_a_tpu(cloud: Cloud):
    cloud.set(resource="", states="SUSPENDED")
    assert cloud.run("create", "pod")[0] == 0
    assert cloud.verbs() == ["delete", "create"]


@pytest.mark.parametrize("state, sentence", [("FAILED", "pod is failed"), ("WAITING_FOR_RESOURCES", "waits on")])
def test_create_ends_when_the_tpu_does_not_come(cloud: Cloud, state: str, sentence: str):
    cloud.set(fresh=state)
    code, _, err = cloud.run("create", "pod", "--wait=0")
    assert code == 1 and sentence in err.splitlines()[-1]


@pytest.mark.parametrize(
    "type_, runtime",
    [("v4-32", "tpu-ubuntu2204-base"), ("v5litepod-8", "v2-alpha-tpuv5-lite"), ("v5p-16", "v2-alpha-tpuv5")],
)
def test_the_runtime_fits_the_type_and_the_environment_names_the_place(cloud: Cloud, type_: str, runtime: str):
    code, out, _ = cloud.run("create", "pod", "--dry-run", TPU_TYPE=type_, TPU_ZONE="z", TPU_PROJECT="p")
    assert code == 0 and f"--runtime-version={runtime} --quiet --zone=z --project=p" in out


def test_delete_of_what_is_there_and_of_what_is_not(cloud: Cloud):
    code, _, err = cloud.run("delete", "pod")
    assert (code, cloud.verbs()) == (0, []) and "not there" in err
    cloud.run("create", "pod")
    code, _, _ = cloud.run("delete", "pod", "--zone=z")
    assert code == 0
    assert cloud.calls()[-1] == "gcloud compute tpus queued-resources delete pod --force --quiet --zone=z".split()


def test_what_a_dry_run_prints_is_what_is_done(cloud: Cloud):
    """Each verb in turn, its dry run first: nothing is called, and then the same is."""
    for verb in ("create", "setup", "run", "status", "stop", "delete"):
        arguments = [verb, "pod", "--bucket=b", "--zone=z", "--ssh-flag=--internal-ip", "--create-flag=--network=n x"]
        arguments += ["--", *FLAGS, "--config.name=it's"] if verb == "run" else []
        if verb == "setup":
            cloud.program("mountpoint", "#!/bin/sh\n")  # it is mounted
        cloud.set(calls="")
        code, out, err = cloud.run(*arguments[:2], "--dry-run", *arguments[2:])
        assert (code, err, cloud.calls()) == (0, "", [])
        printed = [shlex.split(line) for line in out.splitlines() if not line.startswith("#")]
        assert cloud.run(*arguments)[0] == 0
        assert unique(cloud.calls()) == unique([command for command in printed if command[0] == "gcloud"])


def test_dry_runs_of_whole_lives_call_nothing(cloud: Cloud):
    for verb in ("up", "watch"):
        code, out, _ = cloud.run(verb, "pod", "--dry-run", "--type=v6e-8", "--", *FLAGS)
        assert code == 0 and "# After a pre-emption:" in out and "tpu-worker run ssljax.train" in out
    code, out, _ = cloud.run("logs", "pod", "--dry-run", "--worker=3")
    assert code == 0 and "--worker=3 " in out and "tpu-worker logs'" in out
    assert cloud.calls() == []


def test_setup_copies_the_working_tree_to_every_worker_and_may_be_given_again(cloud: Cloud):
    cloud.run("create", "pod")
    (cloud.clone / "ssljax/train.py").write_text("changed")
    (cloud.clone / "forgotten.py").write_text("")
    for name in ("sudo", "gcsfuse"):
        cloud.program(name, f'#!/bin/bash\necho {name} "$@" >>"$HOME/mounts"\n')
    cloud.program("mountpoint", '#!/bin/bash\ngrep -q gcsfuse "$HOME/mounts" 2>/dev/null\n')
    code, _, err = cloud.run("setup", "pod", "--bucket=gs://b/")
    assert code == 0 and "Not copied" in err and "forgotten.py" in err and "Warning" not in err
    for k in range(2):
        home = cloud.home / f"w-{k}"
        assert (home / "ssljax/ssljax/train.py").read_text() == "changed"
        assert not (home / "ssljax/forgotten.py").exists()
        assert "environment requirements.txt\n-m pip install --quiet jax[tpu]\n" == (home / "installed").read_text()
        mounts = (home / "mounts").read_text()
        assert "gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 b /mnt/b" in mounts
    assert subprocess.run(["git", "status", "--short"], cwd=cloud.clone, capture_output=True, text=True).stdout == (
        " M ssljax/train.py\n?? forgotten.py\n"
    )

    (cloud.clone / "ssljax/train.py").unlink()
    cloud.set(hierarchical="")
    code, _, err = cloud.run("setup", "pod", "--bucket=b")
    assert code == 0 and "Warning: gs://b does not say that it has a hierarchical namespace" in err
    assert not (cloud.home / "w-0/ssljax/ssljax/train.py").exists()
    assert (cloud.home / "w-0/mounts").read_text() == mounts


def test_setup_tries_again_while_hosts_do_not_answer(cloud: Cloud):
    cloud.run("create", "pod")
    cloud.set(unreachable="")
    code, _, err = cloud.run("setup", "pod")
    assert code == 1 and err.count("trying again") == 4 and "could not be set up" in err


def test_run_status_stop(cloud: Cloud):
    cloud.set(plan="wait")
    cloud.run("create", "pod")
    assert cloud.run("status", "pod")[1].splitlines()[0] == "pod: active"
    assert cloud.run("status", "pod")[1].count(": idle") == 2
    cloud.run("setup", "pod")
    odd = '--config.name=it\'s "a" $HOME `x` *; & \\n ü\t  é'
    code, _, err = cloud.run("run", "pod", "--", *FLAGS, odd, "")
    assert code == 0 and "tpu logs pod" in err
    cloud.wait_for_starts(1)
    for k in range(2):
        assert cloud.starts(k) == [[[*FLAGS, odd, ""], str(cloud.home / f"w-{k}/ssljax")]]
    assert len(re.findall(r"^w-[01]: running as \d+$", cloud.run("status", "pod")[1], flags=re.M)) == 2

    code, _, err = cloud.run("run", "pod", "--", *FLAGS)
    assert code == 1 and "a run is going on" in err.splitlines()[-1]
    environ = cloud.environ | {"HOME": str(cloud.home / "w-0"), "HOSTNAME": "w-0"}
    worker = [cloud.home / "w-0/ssljax/launch/tpu-worker", "run", "ssljax.train"]  # as from another terminal
    process = subprocess.run(worker, env=environ, capture_output=True, text=True)
    assert process.returncode == 1 and "a run is going on" in process.stderr
    code, out, _ = cloud.run("setup", "pod")
    assert code == 0 and out.count("its code is left as it is") == 2

    code, out, _ = cloud.run("stop", "pod")
    assert code == 0 and sorted(out.splitlines()) == ["w-0: stopped 75", "w-1: stopped 75"]
    assert cloud.run("stop", "pod")[0] == 0
    assert cloud.run("run", "pod", "--", *FLAGS)[0] == 0
    cloud.wait_for_starts(2)


def test_logs_follow_one_worker(cloud: Cloud):
    cloud.run("create", "pod")
    cloud.run("setup", "pod")
    cloud.run("run", "pod", "--", *FLAGS)
    logs = cloud.start("logs", "pod", "--worker=1")
    try:
        assert logs.stdout is not None
        lines = [logs.stdout.readline() for _ in range(3)]
        assert "ssljax.train --config=configs/mae.py:demo" in lines[1] and lines[2] == "w-1 does 0\n"
    finally:
        os.killpg(logs.pid, signal.SIGKILL)
        logs.communicate()


def test_up_does_everything_and_ends_with_the_run(cloud: Cloud):
    code, _, err = cloud.run("up", "pod", "--", *FLAGS)
    assert code == 0 and err.endswith("The run is complete.\n")
    assert cloud.verbs() == ["create", "scp", "setup", "run"]

    code, _, _ = cloud.run("up", "pod", "--", *FLAGS)  # another run on the same TPU
    assert code == 0 and len(cloud.starts(0)) == 2


def test_a_preempted_tpu_is_made_again_and_the_run_goes_on(cloud: Cloud):
    cloud.set(plan="preempted 0")
    code, _, err = cloud.run("up", "pod", "--", *FLAGS)
    assert code == 0 and "pod is suspended: starting again in 0 s (restart 1 of 100)" in err
    assert cloud.verbs() == ["create", "scp", "setup", "run", "delete", "create", "scp", "setup", "run"]
    assert cloud.starts(1)[0] == cloud.starts(1)[1]


def test_a_node_that_is_gone_before_its_resource_knows_is_made_again(cloud: Cloud):
    cloud.set(plan="wait 0")
    cloud.run("create", "pod")
    cloud.run("setup", "pod")
    cloud.run("run", "pod", "--", *FLAGS)
    cloud.set(unreachable="", node="PREEMPTED")
    watch = cloud.start("watch", "pod", "--type=v6e-8", "--", *FLAGS)
    assert watch.stderr is not None
    while "pre-empted" not in watch.stderr.readline():
        assert watch.poll() is None
    (cloud.home / "unreachable").unlink()
    _, err = watch.communicate(timeout=40)
    assert watch.returncode == 0 and err.endswith("complete.\n")
    assert cloud.verbs()[4:] == ["delete", "create", "scp", "setup", "run"]


@pytest.mark.parametrize("plan", ["75 0", "killed/75 0", "75/0 0"])
def test_a_run_that_stopped_goes_on_where_it_was(cloud: Cloud, plan: str):
    cloud.set(plan=plan)
    code, _, err = cloud.run("up", "pod", "--", *FLAGS)
    assert code == 0 and "the run stopped (exit code" in err
    assert cloud.verbs() == ["create", "scp", "setup", "run", "run"]


@pytest.mark.parametrize("plan", ["1", "1/75", "75/1"])
def test_a_run_that_needs_a_change_is_not_started_again(cloud: Cloud, plan: str):
    cloud.set(plan=plan)
    code, _, err = cloud.run("up", "pod", "--", *FLAGS)
    assert code == 1 and "exit code 1, an error that needs a change" in err.splitlines()[-1]
    assert re.search(r"^w-[01]: w-[01] does 1$", err, flags=re.M) and "does 75" not in err
    assert cloud.verbs() == ["create", "scp", "setup", "run", "last"]


def test_restarts_are_bounded(cloud: Cloud):
    cloud.set(plan="75")
    code, _, err = cloud.run("up", "pod", "--restarts=2", "--", *FLAGS)
    assert code == 75 and "--restarts=2 are used up" in err
    assert cloud.verbs().count("run") == 3


def test_workers_that_hang_after_others_have_gone_are_ended(cloud: Cloud):
    cloud.set(plan="75/wait 0")
    code, _, _ = cloud.run("up", "pod", "--grace=0", "--", *FLAGS)
    assert code == 0 and "kill" in cloud.verbs()


def test_watch_ends_when_the_run_is_stopped_by_hand(cloud: Cloud):
    cloud.set(plan="wait")
    watch = cloud.start("up", "pod", "--", *FLAGS)
    cloud.wait_for_starts(1)
    assert cloud.run("stop", "pod")[0] == 0
    _, err = watch.communicate(timeout=20)
    assert watch.returncode == 75 and "stopped by 'stop'" in err and len(cloud.starts(0)) == 1


def test_hosts_that_restarted_are_set_up_again(cloud: Cloud):
    cloud.set(plan="wait 0")
    cloud.run("create", "pod")
    cloud.run("setup", "pod")
    for k in range(2):  # as a reboot leaves them: a pid, no process, no exit code
        (cloud.home / f"w-{k}/.ssljax/pid").write_text("999999")
    cloud.set(plan="0")
    code, _, err = cloud.run("watch", "pod", "--type=v6e-8", "--", *FLAGS)
    assert code == 0 and "workers of pod have restarted" in err and cloud.verbs()[3:] == ["scp", "setup", "run"]


def test_watch_does_not_make_what_somebody_has_deleted(cloud: Cloud):
    code, _, err = cloud.run("watch", "pod", "--type=v6e-8", "--", *FLAGS)
    assert code == 1 and "pod is not there" in err and cloud.verbs() == []


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ("create", "create needs the NAME of a TPU"),
        ("create --spot", "create needs the NAME of a TPU"),
        ("create My_Pod", "'My_Pod' cannot be the name"),
        ("launch pod", "'launch' is no command"),
        ("create pod --typo", "'--typo' is no option"),
        ("create pod --zone", "--zone needs a value"),
        ("create pod --type=tpu7x-16", "GKE only"),
        ("create pod --type=v99-8", "give --runtime"),
        ("create pod --wait=soon", "'soon' is none"),
        ("run pod --config=a", "comes after --"),
        ("run pod", "--workdir=/"),
        ("watch pod -- --workdir=/mnt/b/a", "give it --type"),
        ("run pod -- --config=a --workdir=runs/a", "--workdir=/"),
        ("run pod -- --config=a --workdir=gs://b/a", "--workdir=/"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(arguments: str, sentence: str):
    process = subprocess.run([ROOT / "launch/tpu", *arguments.split()], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (1, "")
    assert sentence in process.stderr and process.stderr.count("\n") == 1


def test_what_gcloud_refuses_ends_in_its_words(cloud: Cloud):
    cloud.set(broken="")
    code, _, err = cloud.run("create", "pod")
    assert code == 1 and "PERMISSION_DENIED" in err and err.count("\n") == 1


def test_without_gcloud(cloud: Cloud):
    (cloud.bin / "gcloud").unlink()
    for tool in ("bash", "readlink"):
        (cloud.bin / tool).symlink_to(shutil.which(tool) or "")
    code, _, err = cloud.run("create", "pod", PATH=str(cloud.bin))
    assert code == 1 and "gcloud is not installed" in err and err.count("\n") == 1


def test_usage():
    for arguments in (["-h"], ["create", "--help"], ["create", "pod", "-h"]):
        process = subprocess.run([ROOT / "launch/tpu", *arguments], capture_output=True, text=True)
        assert process.returncode == 0 and process.stdout.startswith("Usage:")
    assert subprocess.run([ROOT / "launch/tpu"], capture_output=True, text=True).returncode == 1

# shellcheck shell=bash
# Sourced by the launchers, which set $root. After `environment requirements.txt …`, $python has those files installed.
# A new environment is made with $PYTHON if that is set and fits, else with the first Python on PATH that does.

venv=${root:?}/.venv
python=$venv/bin/python
# What the caller's shell says about some other environment must not reach this one.
unset PYTHONHOME PYTHONPATH VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_USER

fail() {
  printf '%s: %s\n' "${0##*/}" "$1" >&2
  exit 1
}

# Sets $base and $version to a Python that can make the environment.
find_python() {
  local candidates candidate answer old='' bare=''
  local question='
import sys
answer = "ready" if sys.version_info >= (3, 11) else "old"
try:
    import ensurepip, venv
except ImportError:
    answer = answer.replace("ready", "bare")
print("%d.%d.%d" % tuple(sys.version_info[:3]), answer)'
  mapfile -t candidates < <(type -ap ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python)
  for candidate in "${candidates[@]}"; do
    [[ ${candidate%/*} -ef $venv/bin ]] && continue # an activated .venv cannot rebuild itself
    # Asked, not trusted: a pyenv shim is on PATH whether or not its Python is there.
    answer=$("$candidate" -I -c "$question" 2>/dev/null) || continue
    version=${answer% *}
    case $answer in
      *ready) base=$candidate && return ;;
      *bare) bare=${bare:-"$version ($candidate)"} ;;
      *old) old=${old:-"$version ($candidate)"} ;;
    esac
  done
  if [[ $bare ]]; then
    local minor=${bare%% *}
    fail "Python $bare has no venv or no ensurepip: try 'sudo apt install python${minor%.*}-venv', then run this again."
  fi
  fail "ssljax needs Python 3.11 or later, and this machine has ${old:-none}:\
 try 'sudo apt install python3.11 python3.11-venv', then run this again."
}

# The names in site-packages, without versions: an upgrade by hand is no damage, a package that has gone is.
installed() {
  "$python" -I -c '
import os, re, sysconfig
for name in os.listdir(sysconfig.get_path("purelib")):
    if "__" not in name:  # __pycache__, and the hashed names of mypyc
        print(re.sub(r"-\d.*(?=\.dist-info$)", "", name))'
}

# Whether .venv runs, has pip, was not left by an interrupted install, and still holds what earlier installs left there.
intact() {
  [[ ! -e $venv/.incomplete ]] || return 1
  "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || return 1
  "$python" -I -c 'import pip' 2>/dev/null || "$python" -I -m ensurepip &>/dev/null || return 1
  ! grep -vxFq -f <(installed) <(tail -qn +2 "$venv"/.*.installed 2>/dev/null)
}

environment() {
  local files=("${@/#/$root/}") stamp="$venv/.${!#}.installed" asked output base version
  asked=$(cat "${files[@]}" | sha256sum)
  (
    if command -v flock >/dev/null && ! flock --nonblock 9; then
      echo 'Waiting for another launch to finish with .venv …'
      flock 9
    fi
    if ! intact; then
      find_python
      [[ ! -e $venv && ! -L $venv ]] || echo 'The .venv that is here is broken or unfinished, so it is made anew.'
      rm -rf "$venv"
      echo "Making .venv with Python $version ($base) …"
      output=$("$base" -m venv "$venv" 2>&1) || fail "Python $version ($base) could not make .venv: ${output##*$'\n'}"
    fi
    if [[ ! -e $stamp || $(head -n 1 "$stamp") != "$asked" ]]; then
      echo "Installing $* into .venv: this happens once, and takes a minute or two …"
      touch "$venv/.incomplete"
      "$python" -m pip install --progress-bar off "${files[@]/#/--requirement=}" &>"$venv/pip.log" </dev/null ||
        fail "pip could not install $* (is there a network, and room on the disk?); its log is $venv/pip.log."
      { echo "$asked" && installed; } >"$stamp"
      rm "$venv/.incomplete"
    fi
  ) 9>"$root/.venv.lock"
}

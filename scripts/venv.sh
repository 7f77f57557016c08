# Sourced by the scripts beside it: makes .venv and installs this project there, once.
#
#   need_venv EXTRAS                   e.g. need_venv test,quickstart; returns at once where nothing has changed
#   run_script EXTRAS FILE ARGUMENT... goes on as scripts/FILE there
#
# Sets root (the checkout) and python (the interpreter of .venv). PYTHON=... names the Python to make .venv from.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
python=$root/.venv/bin/python

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# 3.14 and later are left out until TensorFlow has wheels for them.
is_usable() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.10}; do
        if is_usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "No Python 3.10 to 3.13 found (tried: ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.10})." \
        "Install one (Debian: apt-get install python3 python3-venv) or name one: PYTHON=/path/to/python $0"
}

# Debian ships Python without what venv needs to put pip into a new environment.
need_ensurepip() {
    local package
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    package=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
        die "$1 cannot make a virtual environment: it lacks ensurepip." \
            "Install $package (Debian, Ubuntu: sudo apt-get install $package) and run $0 again."
    echo "== apt-get install $package"
    apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$package"
}

# Whatever an interrupted run has left is completed; only a .venv whose Python does not start is made anew.
make_venv() {
    local base clear=
    if is_usable "$python"; then
        "$python" -c 'import pip' 2>/dev/null && return
    elif [ -x "$python" ] && "$python" -c '' 2>/dev/null; then
        die "$root/.venv is made of $("$python" --version), which this project does not run on. Remove it and run $0 again."
    else
        clear=--clear
    fi
    base=$(find_python) || exit
    need_ensurepip "$base"
    echo "== $base -m venv .venv"
    "$base" -m venv $clear "$root/.venv"
}

# What an installation depends on: where the checkout lies, what it asks for, and the Python it is made for.
fingerprint() {
    { echo "$root" "$1" && cat "$root/setup.cfg" "$root/setup.py" && readlink -f "$python"; } | cksum
}

# PyTorch's own index has a build without CUDA, which is gigabytes smaller. Where it cannot be reached, pip takes what it
# finds elsewhere.
install_torch() {
    local index=https://download.pytorch.org/whl/cpu wanted
    wanted=$(sed -n 's/^ *\(torch == .*\)/\1/p' "$root/setup.cfg" | head -n 1)
    [ "$(uname)" = Linux ] && ! "$python" -c 'import torch' 2>/dev/null || return 0
    "$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=5)' "$index/torch/" 2>/dev/null || return 0
    echo "== pip install $wanted, without CUDA"
    "$python" -m pip install --disable-pip-version-check --index-url "$index" "$wanted" || true
}

install() {
    local stamp=$root/.venv/installed-$1
    [ -x "$python" ] && [ "$(fingerprint "$1")" = "$(cat "$stamp" 2>/dev/null)" ] && return
    make_venv
    case ,$1, in *,test,* | *,benchmark,*) install_torch ;; esac
    echo "== pip install --editable .[$1]"
    (cd "$root" && "$python" -m pip install --disable-pip-version-check --editable ".[$1]")
    fingerprint "$1" >"$stamp" # last, so that an interrupted installation is taken up again
}

# The checkout's folder is the lock: two scripts started at once do not install into one another.
need_venv() {
    (
        ! command -v flock >/dev/null || flock 9
        set -e
        install "$1"
    ) 9<"$root"
}

# run_script EXTRAS FILE ARGUMENT...: goes on as scripts/FILE in that environment.
run_script() {
    local extras=$1 file=$root/scripts/$2
    shift 2
    need_venv "$extras" >&2
    export PYTHONPATH=$root/scripts${PYTHONPATH:+:$PYTHONPATH}
    exec "$python" "$file" "$@"
}

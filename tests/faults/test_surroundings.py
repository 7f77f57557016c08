"""What a program has set for itself is so in its workers too. Each is a program that is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import PATIENCE_S

pytestmark = pytest.mark.own_server

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import os, sys, warnings
from workers import prefetch

class Tells:
    def __init__(self, function):
        self.function = function
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return self.function()

def told(function, **options):
    "What it returns in a worker, and here."
    with prefetch(Tells(function), nb_workers=1, **options) as batches:
        return next(batches), function()
"""


def run(program: str, *flags: str, timeout_s: float = PATIENCE_S) -> tuple[str, str]:
    """(what a program prints that ends well, its errors)."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{HEAD}{program}"],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ["-O"],
        ["-OO"],
        ["-B"],
        ["-E"],
        ["-I"],
        ["-s"],
        ["-b"],
        ["-X", "utf8"],
        ["-X", "dev"],
        ["-X", "int_max_str_digits=5000"],
        ["-W", "error::FutureWarning"],
        ["-X", "dev", "-W", "ignore::FutureWarning", "-O"],
    ],
    ids=" ".join,
)
def test_flags_of_the_interpreter(flags: list[str]) -> None:
    program = """
import sys
def flags():
    left = {"hash_randomization"}  # in workers it is off, for sets of strings to be in one order
    names = [name for name in dir(sys.flags) if not name.startswith(("_", "n_")) and name not in left]
    values = {name: getattr(sys.flags, name) for name in names if not callable(getattr(sys.flags, name))}
    return values, sys._xoptions, sys.warnoptions, __debug__
in_worker, here = told(flags)
if in_worker != here:  # with -O no assert does anything
    sys.exit(f"{in_worker}, {here}")
"""
    assert run(program, *flags) == ("", "")


def test_a_server_of_other_flags_serves_nobody(tmp_path: Path) -> None:
    """It stays when its imports took long; a program that has changed its options gets another one."""
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.6)\n")
    program = f"""
sys.path.append({str(tmp_path)!r})
import slow
def look():
    return slow and os.getppid(), list(sys.warnoptions)
first, _ = told(look)
same, _ = told(look)
assert first == same
sys.warnoptions.append("ignore::FutureWarning")
second, _ = told(look)
assert first[0] != second[0]
assert second[1] == [*first[1], "ignore::FutureWarning"]
"""
    assert run(program) == ("", "")


def test_filters_of_warnings() -> None:
    """Also of a class of the script's; what cannot be pickled is left out."""
    program = """
class Mine(UserWarning):
    pass
warnings.filterwarnings("error", "bad .*", Mine)
warnings.filterwarnings("ignore", category=RuntimeWarning, module="numpy")
class Local(UserWarning):
    import threading
    lock = threading.Lock()
warnings.filterwarnings("ignore", category=Local)
def warn():
    warnings.warn("good", Mine)
    try:
        warnings.warn("bad one", Mine)
    except Mine as error:
        filters = [(each[0], each[2].__name__) for each in warnings.filters]
        return str(error), [each for each in filters if each[1] != "Local"]
warnings.filterwarnings("ignore", "good")
in_worker, here = told(warn)
assert in_worker == here, (in_worker, here)
assert in_worker[0] == "bad one"
"""
    assert run(program) == ("", "")


def test_a_filter_imports_nothing(tmp_path: Path) -> None:
    """In workers, which may not need what it is for."""
    (tmp_path / "heavy.py").write_text("class Heavy(Warning): pass\n")
    program = f"""
sys.path.append({str(tmp_path)!r})
import heavy
warnings.simplefilter("error", heavy.Heavy)
def look():
    return "heavy" in sys.modules
assert told(look) == (False, True)
"""
    assert run(program) == ("", "")


def test_an_import_of_a_worker_is_not_ended_by_a_filter_of_later(tmp_path: Path) -> None:
    """The program has set it behind its imports."""
    (tmp_path / "old.py").write_text(
        "import threading, time, warnings\n"
        "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"  # so each worker imports it
        "warnings.warn('old', FutureWarning)\n"
        "def look(): return 1\n"
    )
    program = f"""
sys.path.append({str(tmp_path)!r})
warnings.simplefilter("ignore")
import old
warnings.simplefilter("error", FutureWarning)
def warn():
    try:
        warnings.warn("new", FutureWarning)
    except FutureWarning:
        return old.look()
assert told(warn) == (1, 1)
"""
    out, errors = run(program)
    assert out == ""
    assert "Error" not in errors


@pytest.mark.parametrize("place", ["global", "job"])
def test_settings_of_pillow(place: str) -> None:
    """Also where a job imports it at last."""
    program = """
from PIL import Image, ImageFile
ImageFile.LOAD_TRUNCATED_IMAGES = True
Image.MAX_IMAGE_PIXELS = None
if {is_job}:
    def look():
        from PIL import Image, ImageFile
        return ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    del Image, ImageFile
else:
    def look():
        return ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
assert told(look) == ((True, None), (True, None))
""".replace("{is_job}", str(place == "job"))
    assert run(program) == ("", "")


@pytest.mark.parametrize("place", ["global", "job"])
def test_settings_of_keras(place: str) -> None:
    """Also where a job imports it at last; with the backend that the program has, whatever its environment says now."""
    program = """
os.environ["KERAS_BACKEND"] = "jax"
import keras
del os.environ["KERAS_BACKEND"]
keras.config.set_floatx("float64")
keras.config.set_epsilon(1e-3)
keras.config.set_image_data_format("channels_first")
keras.config.set_dtype_policy("mixed_bfloat16")
def settings(config):
    policy = config.dtype_policy().name
    return config.floatx(), config.epsilon(), config.image_data_format(), config.backend(), policy
if {is_job}:
    def look():
        import keras
        return settings(keras.config)
    del keras
else:
    def look():
        return settings(keras.config)
in_worker, here = told(look)
assert in_worker == here == ("float64", 1e-3, "channels_first", "jax", "mixed_bfloat16"), in_worker
""".replace("{is_job}", str(place == "job"))
    out, _ = run(program, timeout_s=100)
    assert out == ""


@pytest.mark.parametrize("place", ["global", "job"])
def test_the_default_dtype_of_torch(place: str) -> None:
    pytest.importorskip("torch")
    program = """
import torch
torch.set_default_dtype(torch.float64)
if {is_job}:
    def look():
        import torch
        return str(torch.ones(2).dtype)
    del torch
else:
    def look():
        return str(torch.ones(2).dtype)
assert told(look) == ("torch.float64", "torch.float64")
""".replace("{is_job}", str(place == "job"))
    out, _ = run(program, timeout_s=100)
    assert out == ""


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_floating_point_errors_of_numpy(executor: str) -> None:
    program = """
import numpy as np
np.seterr(divide="ignore", over="raise")
in_worker, here = told(np.geterr, executor="{executor}")
assert in_worker == here, in_worker
assert here["over"] == "raise"
""".replace("{executor}", executor)
    assert run(program) == ("", "")


def test_the_limit_of_recursion() -> None:
    """The object itself is deeper than the usual limit."""
    program = """
sys.setrecursionlimit(20_000)
deep = []
for _ in range(1_500):
    deep = [deep]
def look():
    depth, here = 0, deep
    while here:
        depth, here = depth + 1, here[0]
    return depth, sys.getrecursionlimit()
assert told(look) == ((1_500, 20_000), (1_500, 20_000))
"""
    out, _ = run(program)
    assert out == ""

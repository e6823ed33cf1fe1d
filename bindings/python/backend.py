"""maturin, and an `uniffi-bindgen` for it: it takes the one in the path, and what generates has to be of the library's version.

`pip wheel bindings/python --config-settings=build-args="--profile dev --features bindgen"` takes what a development build has
built.
"""

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import maturin

ROOT = Path(__file__).resolve().parents[2]

# What takes the place of `uniffi-bindgen`. maturin gives two arguments of older versions, which mean something else today.
GENERATOR = f"""
import subprocess, sys
arguments = [argument for argument in sys.argv[1:] if argument != "--library"]
if "--config" in arguments:
    at = arguments.index("--config")
    del arguments[at : at + 2]
cargo = "cargo run --quiet --locked -p pocketlm-ffi --features pocketlm-ffi/bindgen --bin pocketlm-bindgen --"
sys.exit(subprocess.call([*cargo.split(), *arguments], cwd={str(ROOT)!r}))
"""


@contextmanager
def _generator():
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "generator.py")
        script.write_text(GENERATOR)
        if sys.platform == "win32":
            Path(folder, "uniffi-bindgen.cmd").write_text(f'@"{sys.executable}" "{script}" %*\n')
        else:
            shell = Path(folder, "uniffi-bindgen")
            shell.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
            shell.chmod(0o755)
        path = os.environ["PATH"]
        os.environ["PATH"] = folder + os.pathsep + path
        try:
            yield
        finally:
            os.environ["PATH"] = path


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    with _generator():
        return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    with _generator():
        return maturin.build_editable(wheel_directory, config_settings, metadata_directory)


build_sdist = maturin.build_sdist
get_requires_for_build_wheel = maturin.get_requires_for_build_wheel
get_requires_for_build_editable = maturin.get_requires_for_build_editable
get_requires_for_build_sdist = maturin.get_requires_for_build_sdist

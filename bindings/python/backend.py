"""maturin, and an `uniffi-bindgen` for it: it takes the one in the path, and what generates has to be of the library's version.

`pip wheel bindings/python --config-settings=build-args="--profile dev --features tests"` takes what `bindings/test` has built;
POCKETLM_BINDGEN names the generator where that is built as well.
"""

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import maturin

ROOT = Path(__file__).resolve().parents[2]

# What takes the place of `uniffi-bindgen`: maturin gives it arguments of older versions.
GENERATOR = f"""
import argparse, os, subprocess, sys
parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["generate"])
parser.add_argument("--language", required=True)
parser.add_argument("--out-dir", required=True)
parser.add_argument("--config")
parser.add_argument("library")
given = [argument for argument in sys.argv[1:] if argument != "--library"]
arguments, _ = parser.parse_known_args(given)
built = os.environ.get("POCKETLM_BINDGEN")
generator = [built] if built else "cargo run --quiet --locked -p pocketlm-bindgen --".split()
paths = [os.path.abspath(path) for path in (arguments.library, arguments.out_dir)]
sys.exit(subprocess.call([*generator, arguments.language, *paths], cwd={str(ROOT)!r}))
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

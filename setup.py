"""`pip install .` builds the op library where there is a compiler; metadata and everything else is in setup.cfg."""

import importlib.util
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py


class BuildWithOps(build_py):
    """Copies the packages, then adds the compiled library. An editable install leaves that to `make setup`."""

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            return
        source = Path(__file__).resolve().parent / "dlrm_tf2" / "ops" / "build.py"
        spec = importlib.util.spec_from_file_location("build_ops", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        why = module.build(Path(self.build_lib).resolve() / "dlrm_tf2" / "ops" / "lib")
        if why is not None:
            print(f"No native ops: {why}. Everything runs in TensorFlow's own ops.")


class WithCompiledFiles(Distribution):
    """The wheel is of this platform, although setuptools compiles nothing itself."""

    def has_ext_modules(self):
        return True


setup(cmdclass={"build_py": BuildWithOps}, distclass=WithCompiledFiles)

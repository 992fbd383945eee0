"""The one step of a build that ``pyproject.toml`` cannot describe.

The folder ``config/`` lies beside the packages in a checkout. A wheel holds it as
``engine/shipped/config``, where the commands find it after ``pip install``.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIG = Path("config")


class BuildWithConfig(build_py):
    """Collects the files of a wheel, the configurations included."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # then the checkout itself is used
            return
        for file in [*CONFIG.glob("*.yaml"), *CONFIG.glob("tuner/*.yaml")]:
            copy = Path(self.build_lib, "engine", "shipped", file)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)


setup(cmdclass={"build_py": BuildWithConfig})

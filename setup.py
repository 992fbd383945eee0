"""The packages of a wheel; everything else about it is in ``pyproject.toml``.

The folder ``config/`` lies beside the packages in a checkout. A wheel holds it as the package
``engine.shipped_config``, so that the commands find it after ``pip install``.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["engine", "engine.*", "model_zoo", "model_zoo.*"]),
        "engine.shipped_config",
    ],
    package_dir={"engine.shipped_config": "config"},
)

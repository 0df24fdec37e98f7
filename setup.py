"""Packaging of keras_bot: `pip install .`, or `pip install -e .[dev]` to work on it."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "keras_bot/__init__.py").read_text(encoding="utf-8")).group(1)
ONNX = ["onnx>=1.17", "tf2onnx>=1.16", "onnxruntime>=1.20"]
LITERT = ["ai-edge-litert>=1.2"]

setup(
    name="keras_bot",
    version=VERSION,
    description="The Bag of Tricks for Image Classification (He et al., CVPR 2019) in Keras 3",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["keras_bot", "keras_bot.*"]),
    package_data={"keras_bot": ["py.typed", "__init__.pyi"]},
    python_requires=">=3.11",
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.10",
        "keras-cv>=0.9",  # takes our backbones; its DeepLabV3+ is wrapped
        "tensorflow-datasets>=4.9",
        "absl-py>=2.0",
        "safetensors>=0.4.5",  # what timm and others keep weights in
        "matplotlib>=3.7",
        "ml_dtypes>=0.4",
        "numpy>=1.26",
        "pillow>=10.1",  # its built-in font at any size, for pictures of boxes
        "tqdm>=4",
        "scikit-learn>=1.3",  # ships the embedded digits
        "scipy>=1.11",  # Student's t, for the intervals of `ablate`
        "importlib_resources>=5",  # tensorflow-datasets 4.9.10 imports it without asking for it
        "tensorboard>=2.18",  # TensorFlow 2.21 no longer brings it, and its summaries need it
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.18"],
        "jax": ["jax>=0.9"],
        "torch": ["torch>=2.1"],  # to read .pth files
        "detection": ["pycocotools>=2.0.8"],
        "onnx": ONNX,
        "litert": LITERT,
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26", "mkdocs-jupyter>=0.25"],
        "dev": [
            "jax>=0.9",
            "pycocotools>=2.0.8",
            "keras-hub>=0.32",  # its detectors take our backbones
            *ONNX,
            *LITERT,
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.6",
            "mypy>=1.11",
        ],
    },
    entry_points={"console_scripts": ["keras-bot = keras_bot.cli.main:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)

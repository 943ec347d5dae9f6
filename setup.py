from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
SOURCE = (ROOT / "simplepubsub" / "version.py").read_text("utf-8")
VERSION = re.search(r'^__version__ = "([^"]+)"$', SOURCE, re.M).group(1)
README = ROOT / "README.md"

# Each range resolves on every Python from 3.7 (the lower half of it) to 3.13 (the upper half).
EXTRAS = {
    "server": ["aiohttp>=3.8.6,<4"],
    # The messages are built at run time, so any version of the library will do.
    "protobuf": ["protobuf>=3.20,<8"],
    # A serializer of Socket.IO.
    "msgpack": ["msgpack>=1,<2"],
    # websocket-client uses python-socks, requests uses PySocks.
    "socks": ["python-socks>=2.3,<4", "PySocks>=1.7,<2"],
    "test": [
        "pytest>=7.4,<10",
        "pytest-timeout>=2.2,<3",
        "pytest-xdist>=3.3,<4",
        "hypothesis>=6.79,<7",
        "trustme>=1.0,<2",
    ],
}

setup(
    name="simplepubsub",
    version=VERSION,
    description="Blocking real-time pub/sub for Python without asyncio: "
    "a Web PubSub client that resumes, and an embedded server",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="simplepubsub contributors",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["simplepubsub", "simplepubsub.*"]),
    package_data={"simplepubsub": ["py.typed", "LICENSE.txt"]},
    python_requires=">=3.7",
    install_requires=["websocket-client>=1.6,<2", "requests>=2.28,<3", "PyJWT>=2.8,<3"],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["simplepubsub = simplepubsub.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.7",
        "Programming Language :: Python :: 3.8",
        "Programming Language :: Python :: 3.9",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet",
        "Typing :: Typed",
    ],
)

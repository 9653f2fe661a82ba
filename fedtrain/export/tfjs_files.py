"""TF.js as published on npm: downloaded once, held to its SHA-512, copied from there.

Three packages are enough: the core, the reader of graph models, and the WebAssembly
kernels. Nothing in them is changed, and nothing else is fetched.
"""

import base64
import functools
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from fedtrain.core.errors import ConfigError
from fedtrain.core.files import write_atomically

VERSION = "4.22.0"
FOLDER_VARIABLE = "FEDTRAIN_TFJS_DIR"
_REGISTRY = "https://registry.npmjs.org/@tensorflow"
_TIMEOUT_S = 120


class Package(NamedTuple):
    """An npm package.

    Attributes:
      name: Without its scope.
      sha512: Of its tarball, in base64, as npm publishes it.
      files: What is taken out of it.
    """

    name: str
    sha512: str
    files: tuple[str, ...]

    @property
    def tarball(self) -> str:
        """The tarball's file name."""
        return f"{self.name}-{VERSION}.tgz"

    @property
    def url(self) -> str:
        """Where the tarball is published."""
        return f"{_REGISTRY}/{self.name}/-/{self.tarball}"


PACKAGES = (
    Package(
        "tfjs-core",
        "LEkOyzbknKFoWUwfkr59vSB68DMJ4cjwwHgicXN0DUi3a0Vh1Er3JQqCI1Hl86GGZQvY8ezVrtDIvqR1"
        "ZFW55A==",
        ("tf-core.es2017.min.js",),
    ),
    Package(
        "tfjs-converter",
        "PT43MGlnzIo+YfbsjM79Lxk9lOq6uUwZuCc8rrp0hfpLjF6Jv8jS84u2jFb+WpUeuF4K33ZDNx8CjiYr"
        "GQ2trQ==",
        ("tf-converter.es2017.min.js",),
    ),
    Package(
        "tfjs-backend-wasm",
        "/IYhReRIp4jg/wYW0OwbbJZG8ON87mbz0PgkiP3CdcACRSvUN0h8rvC0O3YcDtkTQtFWF/tcXq/KlVDy"
        "V49wmA==",
        (
            "tf-backend-wasm.es2017.min.js",
            "tfjs-backend-wasm-simd.wasm",
            "tfjs-backend-wasm.wasm",
        ),
    ),
)
SCRIPTS = tuple(f for p in PACKAGES for f in p.files if f.endswith(".js"))


def write_tfjs(folder: Path) -> None:
    """Copies TF.js' scripts and kernels, 1.4 MB, into ``folder``.

    Raises:
      ConfigError: If a tarball cannot be had, or is not the one that was published.
    """
    contents = _contents(tarball_folder())
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def check_tfjs() -> None:
    """Raises ConfigError unless every tarball is there and is the published one."""
    _contents(tarball_folder())


def tarball_folder() -> Path:
    """Where tarballs are kept: ``FEDTRAIN_TFJS_DIR``, else in the user's cache."""
    given = os.environ.get(FOLDER_VARIABLE)
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    own = os.environ.get("FEDTRAIN_CACHE_DIR") or Path(caches) / "fedtrain"
    return Path(given) if given else Path(own) / "tfjs"


@functools.lru_cache(maxsize=1)
def _contents(folder: Path) -> dict[str, bytes]:
    """The files that are used, by name: kept, as unpacking takes a second."""
    contents: dict[str, bytes] = {}
    for package in PACKAGES:
        content = io.BytesIO(_tarball(package, folder / package.tarball))
        with tarfile.open(fileobj=content, mode="r:gz") as tar:
            for name in package.files:
                member = tar.extractfile(f"package/dist/{name}")
                contents[name] = member.read() if member else b""
    return contents


def _tarball(package: Package, path: Path) -> bytes:
    if path.is_file():
        return _checked(package, path.read_bytes(), where=str(path))
    content = _checked(package, _downloaded(package, path), where=package.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return content


def _downloaded(package: Package, path: Path) -> bytes:
    try:
        # 2026-11-22: the address is https, whatever the package's name.
        with urllib.request.urlopen(  # nosec B310
            package.url, timeout=_TIMEOUT_S
        ) as response:
            content: bytes = response.read()
    except (OSError, urllib.error.URLError) as error:
        raise ConfigError(
            f"The web target needs TF.js, and {package.url} cannot be fetched "
            f"({error}). Where there is no network, put that file into {path.parent}, "
            f"or name a folder that has it: {FOLDER_VARIABLE}."
        ) from error
    return content


def _checked(package: Package, content: bytes, *, where: str) -> bytes:
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package.sha512:
        raise ConfigError(
            f"{where} is not {package.tarball} as it was published: its SHA-512 is "
            f"{found[:12]}..., not {package.sha512[:12]}.... Remove it and fetch it "
            "again; nothing of it was used."
        )
    return content

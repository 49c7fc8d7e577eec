"""Which translator this is: two that say the same of it make the same of the same document."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def build() -> str:
    """Return the version, and a digest of the code and the schemas: between two releases there are many of one."""
    from hashlib import blake2b

    from translator.document.validate import schema_dir

    digest = blake2b(digest_size=8)
    for root, kind in ((Path(__file__).parent.parent, "*.py"), (Path(schema_dir()), "*.xsd")):
        for path in sorted(root.rglob(kind)):
            data = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    return f"{version('translator')}+{digest.hexdigest()}"

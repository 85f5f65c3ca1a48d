"""A hook of the documentation site: links to files that are not pages lead to the repository."""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\]\((?:\.\./)+((?:calibration|bocr_onnx|tools)/[^)]*|CONTRIBUTING\.md[^)]*|README\.md[^)]*)\)")
FOLDER = re.compile(r"\]\(((?:\w+/)+)\)")


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Returns a page whose links out of the docs, and to folders in them, are links to the repository."""
    repository = f"{config['repo_url'].rstrip('/')}/blob/main"
    markdown = OUTSIDE.sub(rf"]({repository}/\1)", markdown)
    return FOLDER.sub(rf"]({repository}/docs/\1)", markdown)

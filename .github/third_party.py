"""Writes the licences and a bill of materials of the crates that the tool is made of.

    python .github/third_party.py [FOLDER]

writes `third_party.txt`, the texts of all licences, and `acb-fuse.cdx.json`, a CycloneDX bill of materials, into
FOLDER: by default target/notices, where pyproject.toml looks for the licences. Needs Python 3.11, cargo and the crates
of Cargo.lock; the result is the same on every machine. The crates of all platforms are included, so that one file
serves all of them; crates that only build or test the tool are not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import tomllib

SOURCE = Path(__file__).resolve().parents[1]
_TEXTS = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def crates() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the tool's own crate, and the crates that it links, sorted by name and version."""
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    metadata = json.loads(subprocess.run(command, check=True, cwd=SOURCE, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    edges = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    found, left = {root}, [root]
    while left:
        for edge in edges[left.pop()]:
            is_linked = any(kind["kind"] is None for kind in edge["dep_kinds"])
            if is_linked and edge["pkg"] not in found:
                found.add(edge["pkg"])
                left.append(edge["pkg"])
    linked = sorted((packages[each] for each in found - {root}), key=lambda each: (each["name"], each["version"]))
    return packages[root], linked


def licence(package: dict[str, Any]) -> str:
    """Returns a crate's SPDX expression; old crates write a slash for OR."""
    return re.sub(r"\s*/\s*", " OR ", package["license"] or "NOASSERTION")


def licences() -> str:
    """Returns the licence texts, each once, below the names of the crates that carry it."""
    holders: dict[str, list[str]] = defaultdict(list)
    texts_of: dict[str, str] = {}
    without = []
    for package in crates()[1]:
        name = f"{package['name']} {package['version']} ({licence(package)})"
        folder = Path(package["manifest_path"]).parent
        texts = [file for file in sorted(folder.iterdir()) if file.is_file() and _TEXTS.match(file.name)
                 and file.suffix in ("", ".md", ".txt", ".MIT", ".APACHE", ".apache2")]
        for file in texts:
            text = file.read_text(encoding="utf-8", errors="replace").strip()
            # The same text occurs with different line breaks.
            key = " ".join(text.split())
            texts_of.setdefault(key, "\n".join(line.rstrip() for line in text.splitlines()))
            holders[key].append(name)
        if not texts:
            without.append(f"{name}, by {', '.join(package['authors']) or 'its authors'}")
    parts = ["The tool acb-fuse is built of these crates of crates.io. Each licence stands below the crates that carry it."]
    if without:
        parts.append("These carry no text of their licence:\n\n" + "\n".join(without))
    rule = "=" * 79
    for key, names in sorted(holders.items(), key=lambda item: item[1]):
        parts.append(f"{rule}\n" + "\n".join(dict.fromkeys(names)) + f"\n{rule}\n\n{texts_of[key]}")
    return "\n\n".join(parts) + "\n"


def sbom() -> str:
    """Returns the bill of materials as CycloneDX 1.5, with the checksums of Cargo.lock."""
    lock = tomllib.loads((SOURCE / "Cargo.lock").read_text(encoding="utf-8"))
    checksums = {(each["name"], each["version"]): each.get("checksum") for each in lock["package"]}
    own, linked = crates()

    def component(package: dict[str, Any], kind: str) -> dict[str, Any]:
        name, version = package["name"], package["version"]
        purl = f"pkg:cargo/{name}@{version}"
        checksum = checksums.get((name, version))
        hashes = {"hashes": [{"alg": "SHA-256", "content": checksum}]} if checksum else {}
        return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl,
                "licenses": [{"expression": licence(package)}], **hashes}

    components = [component(package, "library") for package in linked]
    serial = uuid5(NAMESPACE_URL, json.dumps(components, sort_keys=True))
    return json.dumps({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "serialNumber": f"urn:uuid:{serial}", "version": 1,
        "metadata": {"component": component(own, "application")}, "components": components,
    }, indent=2) + "\n"


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else SOURCE / "target/notices"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("third_party.txt", licences()), ("acb-fuse.cdx.json", sbom())):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

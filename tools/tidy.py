#!/usr/bin/env python3
"""Runs clang-tidy (.clang-tidy) over compiler/, runtime/ and tools/, on all cores.

A file that was clean stays so until something it depends on changes: its own text, any header of this
repository it includes, the compile command, the configuration, or clang-tidy itself. What was found clean
is remembered under the build folder. Other versions than Debian 12's find other things: with them nothing is
checked, and the exit code is 77.   usage: tools/tidy.py [BUILD_FOLDER]
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = "14"
SKIPPED = 77
INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def include_folders(command):
    return [pathlib.Path(folder) for folder in re.findall(r"-I\s*(\S+)", command)]


class Dependencies:
    """The repository's files that a source includes, directly or not. (System headers come with the compiler.)"""

    def __init__(self):
        self._direct = {}

    def _includes(self, path, folders):
        if path not in self._direct:
            names = [name.decode() for name in INCLUDE.findall(path.read_bytes())]
            places = [[folder / name for folder in [path.parent, *folders]] for name in names]
            self._direct[path] = [next((p for p in place if p.is_file()), None) for place in places]
        return [p for p in self._direct[path] if p]

    def of(self, source, folders):
        found, todo = set(), [source]
        while todo:
            path = todo.pop()
            if path not in found:
                found.add(path)
                todo += self._includes(path, folders)
        return sorted(found)


def configurations(source):
    """The .clang-tidy files that clang-tidy reads for a source, the nearest first."""
    folders = [folder for folder in source.parents if folder.is_relative_to(ROOT)]
    return [path for path in (folder / ".clang-tidy" for folder in folders) if path.is_file()]


class Tidy:
    def __init__(self, build):
        self.build = build
        self.clean = build / "tidy"
        self.clean.mkdir(parents=True, exist_ok=True)
        self.dependencies = Dependencies()
        self.version = clang_tidy_version().encode()

    def key(self, entry):
        digest = hashlib.sha256(self.version)
        for configuration in configurations(pathlib.Path(entry["file"])):
            digest.update(configuration.read_bytes())
        digest.update(entry["command"].encode())
        for path in self.dependencies.of(pathlib.Path(entry["file"]), include_folders(entry["command"])):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def is_clean(self, entry):
        return (self.clean / self.key(entry)).exists()

    def check(self, entry):
        """What clang-tidy has to say of one source; "" if it is clean."""
        key = self.key(entry)  # of what is checked, should the source change meanwhile
        arguments = ["clang-tidy", "--quiet", "-p", str(self.build), entry["file"]]
        run = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT)
        if run.returncode == 0:
            (self.clean / key).touch()
            return ""
        lines = [line for line in run.stdout.splitlines() if not line.startswith("Suppressed")]
        return "\n".join(lines) or run.stderr


def clang_tidy_version():
    return subprocess.run(["clang-tidy", "--version"], capture_output=True, text=True, check=True).stdout


def entries(build):
    database = json.loads((build / "compile_commands.json").read_text())
    prefixes = tuple(f"{ROOT}/{folder}/" for folder in ("compiler", "runtime", "tools"))
    return [entry for entry in database if entry["file"].startswith(prefixes)]


def main():
    build = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/release").resolve()
    if f"version {VERSION}." not in clang_tidy_version():
        print(f"tidy: not run: {clang_tidy_version().strip()}; the configuration is for version {VERSION}")
        return SKIPPED
    tidy = Tidy(build)
    todo = [entry for entry in entries(build) if not tidy.is_clean(entry)]
    findings = set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for text in pool.map(tidy.check, todo):
            # A finding in a header is seen from every source that includes it.
            findings.update(re.split(r"\n(?=/\S+:\d+:\d+: (?:error|warning))", text) if text else [])
    print("\n".join(sorted(findings)).replace(f"{ROOT}/", ""))
    print(f"tidy: {len(todo)} sources checked, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs README's examples: every ```attn block resolves, every `sagejit ...` line exits with 0.

usage: readme_test.py SAGEJIT
"""
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    program = str(pathlib.Path(sys.argv[1]).resolve())
    text = (root / "README.md").read_text()
    blocks = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    commands = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (language, body) in enumerate(blocks):
            if language == "attn":
                path = pathlib.Path(folder) / f"example{number}.attn"
                path.write_text(body)
                commands.append(["check", str(path)])
            commands += [shlex.split(line)[1:] for line in body.splitlines() if line.startswith("sagejit ")]
        if not commands:
            sys.exit("README has no examples: this test would test nothing")
        for command in commands:
            command = [str(pathlib.Path(folder) / c) if c == "kernel.cu" else c for c in command]
            result = subprocess.run([program, *command], cwd=root, capture_output=True, text=True)
            print("sagejit", *command, "->", result.returncode)
            if result.returncode:
                sys.exit(result.stdout + result.stderr)


if __name__ == "__main__":
    main()

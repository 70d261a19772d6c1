"""Checks who includes whom: arrows point one way (tools, tests -> runtime -> compiler, and the stages inside)."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What a folder of compiler/ may include besides itself.
STAGES = {
    "support": set(),
    "target": {"support"},
    "layout": {"support", "sema/variant.h"},
    "dsl": {"support"},
    "sema": {"support", "dsl", "target"},
    "schedule": {"support", "layout", "target", "sema/variant.h"},
    "plan": {"support", "layout", "target", "sema", "schedule", "artifact.h"},
    "ir": {"support", "layout", "target"},
    "kernels": {"support", "layout", "target", "sema/variant.h", "schedule", "plan", "ir", "artifact.h"},
    "cost": {"support", "target", "sema/variant.h", "schedule", "ir", "artifact.h"},
    "backend": {"support", "target", "ir", "artifact.h"},
}
# What a top folder may include.
FOLDERS = {
    "compiler": {"compiler"},
    "runtime": {"compiler", "runtime"},
    "tools": {"compiler", "runtime", "tools", "tests/reference"},
    "tests": {"compiler", "runtime", "tests", "tools"},
}
# Headers that belong to one place alone.
PRIVATE = {"cuda.h": "runtime/device/cuda/", "nvrtc.h": "compiler/backend/cuda/", "llvm/": "compiler/backend/llvm/"}


def allowed_in_compiler(stage, included):
    parts = included.split("/")
    if len(parts) == 2:  # compiler/artifact.h, compiler/compile.h
        return stage is None or parts[1] in STAGES.get(stage, set())
    if stage is None or parts[1] == stage:
        return True
    allowed = STAGES[stage]
    return parts[1] in allowed or "/".join(parts[1:]) in allowed


def violations(path):
    name = path.relative_to(ROOT).as_posix()
    top = name.split("/")[0]
    stage = name.split("/")[1] if top == "compiler" and name.count("/") > 1 else None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        quote, included = match.groups()
        where = f"{name}:{number}: {included}"
        for header, home in PRIVATE.items():
            if quote == "<" and included.startswith(header) and not name.startswith(home):
                yield f"{where}: belongs to {home} alone"
        if quote == "<" or "/" not in included:
            continue
        if name.startswith("runtime/device/emulator/") and included.startswith("compiler/"):
            yield f"{where}: the emulator is an independent witness and includes nothing of compiler/"
        if included.split("/")[0] in FOLDERS:
            if not any(included.startswith(f + "/") for f in FOLDERS[top]):
                yield f"{where}: {top}/ may not include it"
            elif top == "compiler" and not allowed_in_compiler(stage, included):
                yield f"{where}: compiler/{stage}/ may not include it"
            elif name.startswith("tests/reference/") and included.startswith("compiler/") and included not in (
                    "compiler/sema/variant.h", "compiler/support/dtype.h", "compiler/support/error.h"):
                yield f"{where}: the reference shares no code with the compiler"


def main():
    files = [p for top in FOLDERS for p in (ROOT / top).rglob("*") if p.suffix in (".h", ".hpp", ".cc", ".c", ".def")]
    found = [v for path in sorted(files) for v in violations(path)]
    print("\n".join(found) or f"{len(files)} files, arrows point one way")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Walks the include edges: a file may include only its own floor and those below it, and CUDA
headers appear only under cuda/ folders. Prints every violation; exit 1 if there is one.
Usage: check_floors.py REPOSITORY_ROOT"""

import pathlib
import re
import sys

# Longest prefix first. Several folders may share a floor; siblings on one floor that must not see
# each other are told apart by the link step.
FLOORS = {
    "core/base": 0,
    "core/tensor": 1,
    "core/kernels": 2, "core/cpu": 2, "core/cuda": 2, "core/no_cuda": 2, "core/comm": 2,
    "core/autograd": 3, "core/ops": 3,
    "layers": 4,
    "optim": 5, "data": 5,
    "train": 6,
    "tests": 7,
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)
CUDA_HEADER = re.compile(r"^(cuda|cublas|nccl|cooperative_groups|mma\.h|cub/)")


def floor_of(path):
    best = max((f for f in FLOORS if path.startswith(f + "/")), key=len, default=None)
    return None if best is None else FLOORS[best]


def main(root):
    root = pathlib.Path(root)
    problems = []
    edges = 0
    for folder in ("core", "layers", "optim", "data", "train", "tests"):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in {".h", ".cpp", ".cu", ".cuh"}:
                continue
            name = file.relative_to(root).as_posix()
            floor = floor_of(name)
            if floor is None:
                problems.append(f"{name}: belongs to no floor")
                continue
            for included in INCLUDE.findall(file.read_text(encoding="utf-8")):
                edges += 1
                target = floor_of(included)
                if target is not None and target > floor:
                    problems.append(f"{name} (floor {floor}) includes {included} (floor {target})")
                if CUDA_HEADER.match(included) and "/cuda/" not in name:
                    problems.append(f"{name}: {included} outside a cuda/ folder")
    print(f"{edges} include edges, {len(problems)} violations")
    print("\n".join(problems))
    return 1 if problems or edges == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

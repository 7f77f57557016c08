"""The rooms of the house: imports run one way, and no file is a house of its own."""

from __future__ import annotations

import ast

from house import FILES, ROOMS, ROOT, imports, name_of, room_of


def test_imports_run_one_way() -> None:
    wrong = []
    for file in FILES:
        here = room_of(name_of(file))
        for name in imports(file) if here != "workers" else ():  # but for the front door
            there = room_of(name)
            is_by_the_front_door = name[0] == "workers" and there not in ROOMS  # a name that users import too
            is_right = (
                here in ("sampler", "__main__") if is_by_the_front_door else ROOMS.index(there) <= ROOMS.index(here)
            )
            if not is_right:
                wrong.append(f"{file.relative_to(ROOT)} imports {'.'.join(name)}")
    assert not wrong


def test_no_module_imports_itself() -> None:
    """Not in a circle either: within a room too there is a first module."""
    modules = {".".join(name_of(file)): file for file in FILES if file.name != "__init__.py"}
    needs = {}
    for module, file in modules.items():
        found = {name for each in imports(file) for name in (".".join(each), ".".join(each[:-1]))}
        needs[module] = found & set(modules)
    done: set[str] = set()
    while left := set(needs) - done:
        first = {module for module in left if needs[module] <= done | {module}}
        assert first, f"in a circle: {sorted(left)}"
        done |= first


def test_no_file_is_too_long() -> None:
    too_long = []
    for file in FILES:
        text = file.read_text()
        lengths = {str(file.relative_to(ROOT)): len(text.splitlines()) - 350}
        classes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
        lengths |= {node.name: (node.end_lineno or 0) - node.lineno - 249 for node in classes}
        too_long += [f"{name}, by {length} lines" for name, length in lengths.items() if length > 0]
    assert not too_long

"""conan_recipe.py RECIPE VERSION: runs the Conan recipe with stand-ins for Conan's functions, which need a network."""

import importlib.util
import os
import pathlib
import shutil
import sys
import tempfile
import types


class ConanFile:
    def requires(self, what, transitive_headers=False):
        self.required.append((what, transitive_headers))


def files_below(source):
    for folder, folders, names in os.walk(source):
        if "build" in folders:
            folders.remove("build")  # where other tests come and go
        yield from (pathlib.Path(folder, name) for name in names)


def copy(recipe, pattern, src, dst):
    source = pathlib.Path(src).resolve()
    found = [file for file in files_below(source) if file.relative_to(source).match(pattern)]
    if "/" in pattern:  # Conan's patterns match whole paths, and a star matches slashes
        head, tail = pattern.split("*")
        found = [file for file in files_below(source)
                 if str(file.relative_to(source)).startswith(head) and file.name.endswith(tail)]
    if not found:
        sys.exit(f"conan: {pattern} finds nothing in {src}")
    for file in found:
        to = pathlib.Path(dst, file.relative_to(source))
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, to)


for name, content in {
    "conan": {"ConanFile": ConanFile},
    "conan.tools": {},
    "conan.tools.build": {"check_min_cppstd": lambda recipe, version: None},
    "conan.tools.files": {"copy": copy, "load": lambda recipe, path: pathlib.Path(path).read_text()},
    "conan.tools.layout": {"basic_layout": lambda recipe: None},
}.items():
    module = types.ModuleType(name)
    module.__dict__.update(content)
    sys.modules[name] = module

path, version = sys.argv[1:]
spec = importlib.util.spec_from_file_location("conanfile", path)
conanfile = importlib.util.module_from_spec(spec)
sys.dont_write_bytecode = True
spec.loader.exec_module(conanfile)

with tempfile.TemporaryDirectory() as work:
    recipe = conanfile.ChatprotoConan()
    recipe.required = []
    recipe.recipe_folder = str(pathlib.Path(path).parent)
    recipe.export_sources_folder = recipe.source_folder = work + "/sources"
    recipe.package_folder = work + "/package"
    recipe.settings = types.SimpleNamespace(os="Linux")
    recipe.cpp_info = types.SimpleNamespace()
    recipe.info = types.SimpleNamespace(clear=lambda: None)
    recipe.set_version()
    assert recipe.version == version, f"the recipe is of {recipe.version} and not of {version}"
    for step in ("export_sources", "layout", "requirements", "validate", "package_id", "package", "package_info"):
        getattr(recipe, step)()
    ours = pathlib.Path(path).parents[2] / "include"
    headers = sorted(str(file.relative_to(ours)) for file in ours.rglob("*.hpp"))
    packaged = pathlib.Path(recipe.package_folder, "include")
    assert headers == sorted(str(file.relative_to(packaged)) for file in packaged.rglob("*.hpp"))
    assert pathlib.Path(recipe.package_folder, "licenses", "LICENSE").is_file()
    assert recipe.required == [("asio/[>=1.22 <2]", True)]
    assert "ASIO_STANDALONE" in recipe.cpp_info.defines

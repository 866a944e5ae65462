"""What the other rooms know of the methods comes from their declarations."""

import subprocess
import sys
from dataclasses import fields

import pytest

from tnr_dist.stages import registry
from tnr_dist.stages.methods import MADE, METHODS, SECTIONS, Tree, load_config, sections_behind
from tnr_dist.util.errors import InputError


def test_what_is_declared_is_what_the_modules_make():
    assert sorted(made.name for made in MADE) == sorted(registry.STAGES)
    assert [name for method in METHODS for name in method.rows] == list(registry.ROWS)
    assert {name for made in MADE for name in made.inputs} <= set(registry.STAGES)
    for method in METHODS:
        assert set(method.chooses) <= {field.name for field in fields(method.section)}


def test_the_sections_of_the_tree_keep_their_order():
    keys = [field.name for field in fields(Tree)]
    first, last = keys.index("student") + 1, keys.index("evaluate")
    assert tuple(keys[first:last]) == SECTIONS
    assert keys[:2] == ["output", "folders"] and keys[-2:] == ["rows", "reproduce"]
    assert SECTIONS[:5] == ("post_train", "stage1", "finetune", "cache", "stage2")


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("post-train", {"post_train"}),
        ("stage1", {"stage1", "post_train"}),
        ("teacher", {"finetune", "post_train"}),
        ("cache", {"cache", "finetune", "post_train"}),
        ("further-pretrain", {"further_pretrain"}),
        ("tinybert-general", {"tinybert", "post_train"}),
        ("tinybert-intermediate", {"tinybert", "finetune", "post_train"}),
        ("of another version", set()),
    ],
)
def test_an_input_depends_on_the_sections_of_what_it_starts_from(name, sections):
    assert sections_behind(name) == sections


def test_a_report_has_the_order_of_the_pipeline():
    names = [made.name for made in MADE]
    assert names[:6] == ["post-train", "further-pretrain", "stage1", "finetune", "cache", "stage2"]


def test_a_row_of_no_method_is_refused_with_those_that_there_are(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("rows: [{name: x, method: magic}]\n")
    with pytest.raises(InputError) as error:
        load_config(path)
    rows = ", ".join(registry.ROWS)
    assert str(error.value) == f"{path}: rows[0].method='magic': expected one of {rows}"


def test_a_configuration_is_read_without_torch():
    code = "import sys; from tnr_dist.stages.methods import load_config; load_config(None); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""The dashboard's definition, and what `tnr dashboard` makes of it."""

import re
import sys
from types import SimpleNamespace

import pytest

from tnr_dist.runs import dashboard
from tnr_dist.util.errors import InputError

KEYS = (
    "train/loss", "train/loss_distill", "train/loss_emb", "train/loss_emb_news", "train/loss_emb_user",
    "train/loss_target", "train/omega", "train/teacher_weight_0", "train/teacher_entropy", "optim/lr",
    "optim/grad_norm", "perf/samples_per_s", "perf/news_per_s", "perf/tokens_per_s", "perf/mfu", "perf/data_wait_pct",
    "perf/dedupe_ratio", "perf/ms_per_step", "memory/max_gib", "ranks/data_wait_pct_0", "ranks/max_gib_0",
    "ranks/cpu_pct_0", "eval/auc", "eval/mrr", "eval/ndcg5", "eval/ndcg10", "eval/matching_accuracy", "train/accuracy",
    "train/skipped_samples", "eval/worst_impressions", "eval/nearest_news",
)  # fmt: skip


def shown():
    for section in dashboard.definition()["sections"]:
        for panel in section["panels"]:
            named = [panel["table"]] if "table" in panel else panel.get("y") or panel.get("bar") or []
            yield panel, named


def test_every_question_has_a_section():
    names = [section["name"] for section in dashboard.definition()["sections"]]
    assert names == ["Is it learning?", "Which teacher is trusted?", "Is it fast?", "Where is time lost?"]


def test_every_key_has_a_panel_and_every_panel_keys():
    named = {key for _, keys in shown() for key in keys}
    patterns = [panel["regex"] for panel, _ in shown() if "regex" in panel]
    assert named <= set(KEYS)
    assert all(any(re.fullmatch(pattern, key) for key in KEYS) for pattern in patterns)
    assert not [key for key in KEYS if key not in named and not any(re.fullmatch(p, key) for p in patterns)]


def test_description_names_all_panels():
    text = dashboard.describe()
    for panel, _ in shown():
        assert f"  {panel['title']}: " in text


class Recorded:
    """Stands for the classes of wandb_workspaces: what is saved gets an address, as there."""

    def __init__(self, **arguments):
        self.__dict__.update(arguments)
        self.url = ""

    def save(self):
        self.url = f"https://example.org/{self.entity}/{self.project}/{len(self.sections)}"


@pytest.fixture
def package(monkeypatch, tmp_path):
    names = ("LinePlot", "BarPlot", "WeavePanelSummaryTable", "Section", "Workspace", "WorkspaceSettings")
    kinds = {name: type(name, (Recorded,), {}) for name in names}
    module = SimpleNamespace(**kinds)
    reports = SimpleNamespace(v2=module)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", SimpleNamespace(reports=reports, workspaces=module))
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports", reports)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", module)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", module)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_ENTITY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_view_holds_every_panel(package):
    view = dashboard.workspace("p", "e")
    assert (view.project, view.entity, view.settings.x_axis) == ("p", "e", "samples")
    made = [panel for section in view.sections for panel in section.panels]
    assert len(made) == len(list(shown()))
    assert {type(panel).__name__ for panel in made} == {"LinePlot", "BarPlot", "WeavePanelSummaryTable"}
    assert all(panel.x == "samples" for panel in made if type(panel).__name__ == "LinePlot")


def test_create_saves_the_view(package):
    package.setenv("WANDB_API_KEY", "0" * 40)
    sections = len(dashboard.definition()["sections"])
    assert dashboard.create("p", "e") == f"https://example.org/e/p/{sections}"


def test_create_needs_a_login(package):
    with pytest.raises(InputError, match="wandb login"):
        dashboard.create("p", "e")


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(InputError, match="pip install wandb wandb-workspaces"):
        dashboard.create("p")


def test_the_real_package_takes_the_definition():
    pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")
    sections = dashboard.workspace("p", "e")._to_model().spec.section.panel_bank_config.sections
    assert [len(one.panels) for one in sections] == [len(one["panels"]) for one in dashboard.definition()["sections"]]

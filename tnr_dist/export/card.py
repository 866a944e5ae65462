"""The README.md of an export: what it is, how to use it, data, metrics, what was measured, licences."""

from __future__ import annotations

import re
from pathlib import Path

from tnr_dist import __version__
from tnr_dist.data.manifest import is_generated, manifest_hash, read_manifest
from tnr_dist.evaluation.yardsticks import POPULAR
from tnr_dist.export.description import Checks, Description
from tnr_dist.export.metadata import METRICS, base_model, front_matter
from tnr_dist.export.source import Source
from tnr_dist.models.recommender import count_parameters
from tnr_dist.models.sources import find_folder
from tnr_dist.stages.methods import MADE
from tnr_dist.util.errors import InputError
from tnr_dist.util.markup import markdown, markdown_code, markdown_table

_GENERATED = (
    "**The data are generated**, not logs of readers: news and clicks come from `tnr data synth`. Metrics on them say "
    "nothing about real news.\n"
)
_ENCODER_ONLY = "Post-training and stage 1 train the news encoder only: **the user encoder holds random weights**."
_PLM_ONLY = (
    "This stage trains the PLM only: **pooling, dense layer and user encoder are as they were at its start**, random where "
    "the PLM itself was what it began with."
)
_UNTRAINED = {made.name: _ENCODER_ONLY for made in MADE if made.trains == "news encoder"}
_UNTRAINED |= {made.name: _PLM_ONLY for made in MADE if made.trains == "plm"}
_FILES = {
    "hf": {
        "config.json, model.safetensors": "the PLM under `transformers`' names (its pooler is zeros: the model has none)",
        "tokenizer.json, tokenizer_config.json": "the tokenizer",
        "modules.json, 1_AdditivePooling/, 2_Dense/": "from the PLM's states to the news vector",
        "additive_pooling.py": "the pooling's code for `sentence-transformers`",
        "user_encoder.safetensors": "the user encoder",
    },
    "onnx": {
        "news_encoder.onnx": "`input_ids`, `attention_mask` [batch, length] int64 -> `news_vector` [batch, D]",
        "news_encoder.int8.onnx": "the same with 8-bit matrix products and tables. Activations are scaled by batch, so a "
        "title's vector depends a little on the others of its batch",
        "user_encoder.onnx": "`history` [batch, length, D] float32, `mask` [batch, length] bool -> `user_vector`",
        "tokenizer.json": "the tokenizer",
    },
    "torch.export": {
        "news_encoder.pt2": "program (`input_ids`, `attention_mask` [batch, length] int64) -> [batch, D]",
        "user_encoder.pt2": "program (`history` [batch, length, D] float32, `mask` [batch, length] bool) -> [batch, D]",
        "tokenizer.json": "the tokenizer",
    },
    "vectors": {
        "news.parquet": "`id`, `vector` (D float32 values)",
        "news_ids.npy, vectors.npy": "the same for NumPy; row i is news i",
        "index.faiss": "FAISS index, exact inner product; row i is news i",
        "user_encoder.safetensors": "the user encoder",
    },
}
_OURS = """```python
from tnr_dist.export import Recommender

model = Recommender.from_pretrained("FOLDER"{vectors}{trust})
{add}user = model.encode_user(["N1", "N2"])  # clicked news, oldest first
model.rank(user, ["N3", "N4"])           # [(id, score), ...], best first
model.recommend(user, k=10, exclude=["N1", "N2"])
```
"""
_ADD = 'model.add_news(["N1", "N2", "N3", "N4"], ["A title", "Another", "A third", "A fourth"])\n'
_USES = {
    "hf": """The PLM alone, with `transformers`:

```python
from transformers import AutoModel, AutoTokenizer

tokenizer, encoder = AutoTokenizer.from_pretrained("FOLDER"), AutoModel.from_pretrained("FOLDER")
inputs = tokenizer(["A title"], truncation=True, padding=True, return_tensors="pt")
encoder(**inputs).last_hidden_state  # [1, tokens, width]
```

The model was trained on titles of up to {title_tokens} tokens. `transformers` cuts longer ones only with `truncation=True`;
sentence-transformers, `tokenizers` and `Recommender` always do.

The whole news encoder, with `sentence-transformers`. Its attention pooling is no stock module: `trust_remote_code=True`
lets `additive_pooling.py` of this folder run (read it first; it needs torch and safetensors only).

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER", trust_remote_code=True)
vectors = model.encode(["A title"])  # [1, D]
```
""",
    "onnx": """With `onnxruntime` alone (`Recommender` above takes `quantised=True` for the INT8 graph):

```python
import numpy as np, onnxruntime, tokenizers

tokenizer = tokenizers.Tokenizer.from_file("FOLDER/tokenizer.json")
session = onnxruntime.InferenceSession("FOLDER/news_encoder.onnx")
ids = np.array([tokenizer.encode("A title").ids])
session.run(None, {{"input_ids": ids, "attention_mask": np.ones_like(ids)}})[0]  # [1, D]
```

The tokenizer cuts titles to {title_tokens} tokens, special ones included, as in training; padding (token {pad_id}) stands at
the end.
""",
    "torch.export": """**Loading a program runs code that stands in it** (torch evaluates its expressions). Load it only if you know who made
it; `Recommender` asks for `trust=True`. `hf` and `onnx` exports hold no code. With `torch` alone:

```python
import tokenizers, torch

tokenizer = tokenizers.Tokenizer.from_file("FOLDER/tokenizer.json")
program = torch.export.load("FOLDER/news_encoder.pt2").module()
ids = torch.tensor([tokenizer.encode("A title").ids])
program(ids, torch.ones_like(ids))  # [1, D]
```

The tokenizer cuts titles to {title_tokens} tokens, special ones included, as in training; padding (token {pad_id}) stands at
the end.
""",
    "vectors": """With NumPy or FAISS, for a user vector u [D]: `vectors.npy @ u` are the scores of all news, and

```python
import faiss

scores, rows = faiss.read_index("FOLDER/index.faiss").search(u[None], 10)
```

To encode further news, load the model itself with these vectors beside it:
`Recommender.from_pretrained("MODEL_FOLDER", vectors="FOLDER")`.
""",
}


def write_card(source: Source, description: Description, encoded: Path, folder: Path) -> None:
    """Write `folder`/README.md; `encoded`: the prepared data set whose news an export of vectors holds."""
    plm_licence = _licence_of(source.config.plm.name)
    data = Path(source.config.data.dir)  # which may be gone
    data_type = _data_type(data)
    scored_on = data_type if _is_scored_on(source, data) else "another prepared data set"
    names = {"generated": "generated by tnr data synth", "mind": "MIND", "other": data.name}
    text = "\n".join(
        [
            front_matter(source, description.format, names.get(scored_on, scored_on), scored_on.split()[0]),
            f"# {markdown(source.name)}: news recommender, {source.spec.encoder.layers} layers\n",
            _description_text(source),
            "## Files\n",
            *(f"- `{name}`: {what}" for name, what in _FILES[description.format].items()),
            "- `recommender.json`: what this was made from, and how texts and users are read\n",
            "## Use\n",
            _usage_text(source, description),
            "## Training data\n",
            _data(data, data_type),
            *_news(description, encoded),
            "## Metrics\n",
            _metrics(source, scored_on),
            *_checks(description),
            "## Licences\n",
            _licences(source, plm_licence, data_type),
        ]
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _description_text(source: Source) -> str:
    spec, model = source.spec, source.model
    users = "additive attention" if spec.user_encoder == "attention" else f"NRMS ({spec.user_heads} heads)"
    parts = [
        "A news recommender in the manner of Tiny-NewsRec (Yu et al., EMNLP 2022), trained with "
        f"tnr_dist {__version__}, stage `{source.done['stage']}`. A title becomes a vector (PLM, attention pooling over "
        f"tokens, dense layer), a user the {users} over the vectors of the last {source.config.data.history} clicked "
        "news, and a score is their dot product.",
        "",
        f"- PLM: {_plain_name(source.config.plm.name)}, {spec.encoder.layers} layers of width {spec.encoder.hidden}",
        f"- vectors: D = {spec.news_dim}",
        f"- parameters: {count_parameters(model):,}, of which news encoder {count_parameters(model.news_encoder):,}",
        f"- model.safetensors of the run: sha256 `{source.made_from['model_sha256']}`",
        "",
    ]
    if source.done["stage"] in _UNTRAINED:
        parts += [_UNTRAINED[source.done["stage"]], ""]
    return "\n".join(parts)


def _usage_text(source: Source, description: Description) -> str:
    vectors = description.format == "vectors"
    ours = _OURS.format(
        vectors="" if vectors else ', vectors="VECTORS_FOLDER"',
        trust=", trust=True" if description.format == "torch.export" else "",
        add="" if vectors else f"# Or, without an export of vectors:\n{_ADD}",
    )
    with_ours = "With `tnr_dist` and NumPy, `tokenizers` and torch or onnxruntime:\n\n" + ours
    other = _USES[description.format].format(title_tokens=source.title_tokens, pad_id=source.pad_id)
    return f"{with_ours}\n{other}"


def _data_type(data: Path) -> str:
    """`generated`, `mind` or `other`."""
    try:
        if is_generated(data):
            return "generated"
        names = [str(one["path"]) for one in read_manifest(data)["sources"]]
    except InputError:
        names = [data.name]
    return "mind" if any("mind" in name.lower() for name in names) else "other"


def _data(data: Path, data_type: str) -> str:
    try:
        manifest = read_manifest(data)
    except InputError:
        return f"The prepared data set ({markdown_code(data.name)}) was not at hand when this was exported.\n"
    counts = manifest["counts"]
    lines = [_GENERATED] if data_type == "generated" else []
    lines += [f"Prepared data set {markdown_code(data.name)}: {counts.get('news', 0):,} news.", ""]
    for split, facts in counts.get("splits", {}).items():
        lines.append(f"- {markdown(split)}: {facts['impressions']:,} impressions")
    lines += ["", "Source files:", ""]
    lines += [
        f"- {markdown_code(one['path'])}, {one['bytes']:,} bytes, sha256 {markdown_code(one['sha256'])}"
        for one in manifest["sources"]
    ]
    return "\n".join([*lines, ""])


def _news(description: Description, encoded: Path) -> list[str]:
    """What an export of vectors holds, which need not be the training data."""
    if description.format != "vectors":
        return []
    kind = ", which is generated" if _data_type(encoded) == "generated" else ""
    count = read_manifest(encoded)["counts"].get("news", 0)
    return ["## News\n", f"The vectors of the {count:,} news of {markdown_code(encoded.name)}{kind}.\n"]


def _is_scored_on(source: Source, data: Path) -> bool:
    """Whether the metrics are of this data set."""
    if source.results is None:
        return True
    try:
        return bool(source.results["made_from"].get("data") == manifest_hash(data))
    except InputError:
        return False


def _metrics(source: Source, scored_on: str) -> str:
    if source.results is None:
        return "Not evaluated (`tnr evaluate` had not been run when this was exported).\n"
    results, popularity = source.results, source.popularity
    names = [name for name in METRICS if name in results]
    rows = [["this model", *(f"{100 * results[name]:.2f}" for name in names)]]
    if popularity is not None:
        rows.append([f"{POPULAR} (no model)", *(f"{100 * popularity[name]:.2f}" for name in names)])
    kind = {"generated": " of the generated data", "mind": "", "other": ""}.get(scored_on, f" of {scored_on}")
    lines = [
        f"On the {markdown(results['split'])} split{kind}: {results.get('impressions', 0):,} impressions, per impression, "
        f"averaged, percent; seed {results.get('seed')}.",
        "",
        markdown_table([["", *(METRICS[name] for name in names)], *rows]),
    ]
    if popularity is None:
        lines.append(f'"{POPULAR}", a ranking by clicks alone, was not scored on these data; `tnr run` does.\n')
    elif "auc" in names and popularity["auc"] >= results["auc"]:
        lines.append("**Ranking by clicks alone has the higher AUC here.**\n")
    return "\n".join(lines)


def _checks(description: Description) -> list[str]:
    checks = description.checks
    if not checks:
        return []
    busy = bool(checks.get("busy"))
    mark = " \\*" if busy else ""
    header = ["variant", "largest difference", "smallest cosine"]
    header += ["ms at batch 1: p50" + mark, "p99" + mark, "news/s at batch 256" + mark]
    rows = []
    for name, facts in checks["variants"].items():
        speed = ["p50_ms_batch_1", "p99_ms_batch_1", "news_per_s_batch_256"]
        cells = [f"{facts[key]:,.4g}" + mark if key in facts else "not measured" for key in speed]
        rows.append([name, f"{facts['max_difference']:.2g}", f"{facts['min_cosine']:.6f}", *cells])
    where = ", ".join(f"{key} {markdown(str(value))}" for key, value in checks["measured_on"].items())
    lines = [
        "## Checks\n",
        "This export was loaded again and compared with the run's own model in float32 on some titles.\n",
        markdown_table([header, *rows]),
        f"From token ids to vectors. Measured on: {where}.\n",
    ]
    if busy:
        lines.append(f"{mark.strip()} {_busy_note(checks)}: these times are longer than on a quiet one.\n")
    return lines


def _busy_note(checks: Checks) -> str:
    return f"**Measured on a busy machine**, where other processes kept {checks['other_work']:.1f} of the cores busy"


def _licences(source: Source, plm_licence: str, data_type: str) -> str:
    terms = {
        "mind": "- MIND, the training data: Microsoft Research Licence Terms, for research only and not for commercial use; "
        "whether they bind weights trained on it is for the user to judge.",
        "generated": "- The training data are generated by tnr_dist and have no terms of their own.",
    }
    lines = [
        "- tnr_dist, the code that trained this: MIT.",
        f"- The PLM these weights start from, {_plain_name(source.config.plm.name)}: {plm_licence}.",
        terms.get(data_type, "- The training data: see its own terms."),
    ]
    return "\n".join([*lines, "", "The exporter grants no rights of its own beyond these.", ""])


def _plain_name(plm: str) -> str:
    """A PLM's name without the folders of the machine it lay on."""
    if not Path(plm).expanduser().exists():
        return markdown_code(plm)
    known = base_model(plm)
    return markdown_code(Path(plm).name) + (
        f" (a local folder; {markdown_code(known)})" if known else " (a local folder)"
    )


def _licence_of(plm: str) -> str:
    """What the PLM's own model card says."""
    try:
        card = find_folder(plm) / "README.md"
        found = re.search(r"^license:\s*(\S+)", card.read_text(encoding="utf-8"), re.MULTILINE)
    except (InputError, OSError, UnicodeDecodeError):
        found = None
    return (
        f"{markdown(found.group(1))}, as its model card says"
        if found
        else "its files do not say; ask where it came from"
    )


def described(checks: Checks) -> str:
    """One line about what was measured, for the terminal."""
    parts = []
    for name, facts in checks.get("variants", {}).items():
        speed = f", {facts['news_per_s_batch_256']:,.0f} news/s" if "news_per_s_batch_256" in facts else ""
        parts.append(f"{name}: largest difference {facts['max_difference']:.2g}{speed}")
    return "; ".join(parts) + ("; measured on a busy machine" if checks.get("busy") else "")

"""Every export reloads and gives the run's own vectors."""

import io
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch

from tnr_dist.export import Recommender
from tnr_dist.export.description import Description
from tnr_dist.export.measure import our_vectors
from tnr_dist.export.runtimes import open_runtime
from tnr_dist.util.errors import InputError

from .cases import CLOSE, KINDS, TITLES, need, random_titles, source_of

#: Tracing takes seconds; what is traced is compared with the packed model in test_padded.py.
TRACED = [pytest.param(form, marks=pytest.mark.slow) for form in ("torch.export", "onnx")]
#: Of about 80 and 2,000 tokens; the model was trained on 24.
LONG = [" ".join(["harbor"] * 80), " ".join(["storm"] * 2000)]
HISTORY = np.random.default_rng(0).standard_normal((3, 7, 16)).astype(np.float32)


def _users(model, history, lengths):
    """User vectors of the run's own model."""
    mask = np.arange(history.shape[1]) < np.array(lengths)[:, None]
    with torch.no_grad():
        return model.encode_users(torch.from_numpy(history), torch.from_numpy(mask)).numpy(), mask


@pytest.mark.parametrize("form", ["hf", *TRACED])
def test_news_and_user_vectors(form, exports, expected, source):
    model = Recommender.from_pretrained(exports(form), trust=True)
    found = model.encode_news(TITLES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=CLOSE)
    np.testing.assert_allclose(model.encode_news(TITLES[:1]), expected[:1], atol=CLOSE)  # batch 1, another length
    for length in (0, 1, 7):
        users, _ = _users(source.model, HISTORY[:1], [length])
        np.testing.assert_allclose(model.encode_user(HISTORY[0, :length]), users[0], atol=CLOSE)


@pytest.mark.parametrize("form", ["hf", *TRACED])
def test_users_in_a_batch(form, exports, source):
    folder = exports(form)
    runtime = open_runtime(folder, Description.read(folder), trust=True)
    expected, mask = _users(source.model, HISTORY, [7, 2, 0])
    np.testing.assert_allclose(runtime.users(HISTORY, mask), expected, atol=CLOSE)


@pytest.mark.slow
def test_int8_is_close_and_smaller(exports, expected):
    folder = exports("onnx")
    found = Recommender.from_pretrained(folder, quantised=True).encode_news(TITLES)
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99
    assert 0 < np.abs(found - expected).max() < 0.1
    assert (folder / "news_encoder.int8.onnx").stat().st_size < (folder / "news_encoder.onnx").stat().st_size


@pytest.mark.parametrize("form", ["hf", *TRACED])
def test_the_tokenizer_cuts_titles_by_itself(form, exports, source):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(exports(form) / "tokenizer.json"))
    ids, offsets = source.tokenizer.encode_batch(LONG, source.title_tokens)
    assert np.diff(offsets).tolist() == [24, 24]
    assert [one.ids for one in tokenizer.encode_batch(LONG)] == ids.reshape(2, 24).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "close"), [("news_encoder.onnx", CLOSE), ("news_encoder.int8.onnx", 0.1)])
def test_onnxruntime_alone_reads_long_titles(graph, close, exports, source):
    import onnxruntime
    import tokenizers

    folder = exports("onnx")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = onnxruntime.InferenceSession(folder / graph)
    expected = our_vectors(source, *source.tokenizer.encode_batch(LONG, source.title_tokens))
    for title, vector in zip(LONG, expected, strict=True):
        ids = np.array([tokenizer.encode(title).ids])
        (found,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        np.testing.assert_allclose(found[0], vector, atol=close)


@pytest.mark.slow
def test_onnx_names_and_dynamic_dimensions(exports):
    import onnxruntime

    session = onnxruntime.InferenceSession(exports("onnx") / "news_encoder.onnx")
    inputs = {one.name: (one.shape, one.type) for one in session.get_inputs()}
    assert inputs == {name: (["batch", "length"], "tensor(int64)") for name in ("input_ids", "attention_mask")}
    (output,) = session.get_outputs()
    assert output.name == "news_vector" and output.shape == ["batch", 16]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("nrms", "learned", "roberta", "mpnet", "unilm"))
def test_other_models_trace(kind, tmp_path):
    need("onnx", "onnxruntime", "onnxscript")
    from tnr_dist.export import onnx, program

    source = source_of(kind)
    program.write(source, tmp_path)
    onnx.write(source, tmp_path)
    tokens, offsets = random_titles(source)
    history = HISTORY[:, :, :8].copy()
    users, mask = _users(source.model, history, [7, 2, 0])
    for form in ("torch.export", "onnx"):
        runtime = open_runtime(tmp_path, source.describe(form), trust=True)
        np.testing.assert_allclose(runtime.news(tokens, offsets), our_vectors(source, tokens, offsets), atol=CLOSE)
        np.testing.assert_allclose(runtime.users(history, mask), users, atol=CLOSE)
        one = _users(source.model, history[:1, :1], [1])
        np.testing.assert_allclose(runtime.users(history[:1, :1], one[1]), one[0], atol=CLOSE)


@pytest.mark.parametrize("kind", KINDS)
def test_hugging_face_weights_read_back(kind, tmp_path):
    from tnr_dist.export import huggingface

    source = source_of(kind)
    huggingface.write_model(source, tmp_path)
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = huggingface.read_model(tmp_path, source.describe("hf"))
    tokens, offsets = random_titles(source)
    again = our_vectors(type(source)("", model, source.spec, None, source.config, {}, {}, None), tokens, offsets)
    np.testing.assert_allclose(again, our_vectors(source, tokens, offsets), atol=CLOSE)
    history = HISTORY[:, :, :8].copy()
    users = [_users(one, history, [7, 2, 0])[0] for one in (model, source.model)]
    np.testing.assert_allclose(*users, atol=CLOSE)


def test_vectors_for_other_tools(exports, source, prepared):
    need("faiss")
    import faiss
    import pyarrow.parquet as pq

    folder = exports("vectors")
    ids, vectors = (np.load(folder / name) for name in ("news_ids.npy", "vectors.npy"))
    table = pq.read_table(folder / "news.parquet")
    assert table["id"].to_pylist() == ids.tolist()
    assert table["id"].to_pylist() == pq.read_table(prepared / "news.parquet")["id"].to_pylist()
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy(zero_copy_only=False)), vectors)
    titles = pq.read_table(prepared / "news.parquet")["title"].to_pylist()[:20]
    expected = our_vectors(source, *source.tokenizer.encode_batch(titles, 24))
    np.testing.assert_allclose(vectors[:20], expected, atol=CLOSE)
    index = faiss.read_index(str(folder / "index.faiss"))
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    user = HISTORY[0, 0]
    scores, rows = index.search(user[None], 5)
    assert rows[0].tolist() == np.argsort(-(vectors @ user), kind="stable")[:5].tolist()
    np.testing.assert_allclose(scores[0], np.sort(vectors @ user)[::-1][:5], atol=CLOSE)


@pytest.mark.parametrize("form", ["hf", *TRACED])
def test_a_damaged_file_is_named(form, exports, tmp_path):
    name = {"hf": "2_Dense/model.safetensors", "torch.export": "news_encoder.pt2", "onnx": "user_encoder.onnx"}[form]
    folder = Path(shutil.copytree(exports(form), tmp_path / form))
    (folder / name).write_bytes(b"damaged")
    with pytest.raises(InputError, match=name):
        Recommender.from_pretrained(folder, trust=True)


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.slow
def test_a_program_executes_no_pickle(exports, tmp_path):
    folder = exports("torch.export")
    marker = tmp_path / "executed"
    bad = io.BytesIO()
    torch.save(({"x": _Touch(marker)}, {}), bad)
    for name, content in (
        ("news_encoder/data/sample_inputs/model.pt", bad.getvalue()),
        ("news_encoder/data/constants/opaque_obj_0", pickle.dumps(_Touch(marker))),
    ):
        copied = Path(shutil.copytree(folder, tmp_path / Path(name).name))
        with (
            zipfile.ZipFile(folder / "news_encoder.pt2") as old,
            zipfile.ZipFile(copied / "news_encoder.pt2", "w") as new,
        ):
            for member in old.namelist():
                new.writestr(member, content if member == name else old.read(member))
            if name not in old.namelist():
                new.writestr(name, content)
        Description.read(copied).write(copied)  # its digests are those of whoever made it
        with pytest.raises(InputError, match=r"news_encoder\.pt2: refused"):
            Recommender.from_pretrained(copied, trust=True)
        assert not marker.exists()


_ALONE = """
import sys

for name in {blocked}:
    sys.modules[name] = None  # an import of it fails
from tnr_dist.export import Recommender

assert not {{"torch", "onnxruntime", "tokenizers", "transformers"}} & {{n for n, m in sys.modules.items() if m}}
model = Recommender.from_pretrained({folder!r}, vectors={vectors!r}, trust=True)
model.add_news(["x", "y"], ["A title", "Another one"])
user = model.encode_user(["x", model.ids[0]])
print(len(model.recommend(user, 5)), len(model.rank(user, ["y", "x"])))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "blocked"),
    [("onnx", ["torch", "transformers", "pyarrow", "faiss"]), ("torch.export", ["onnxruntime", "transformers"])],
)
def test_serving_needs_one_runtime_only(form, blocked, exports):
    code = _ALONE.format(blocked=blocked, folder=str(exports(form)), vectors=str(exports("vectors")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["5", "2"]


def test_description_says_what_it_was_made_from(exports, run):
    values = json.loads((exports("hf") / "recommender.json").read_text())
    assert values["made_from"]["run"] == run.name and values["made_from"]["id"] == "abc"
    assert values["checks"]["variants"]["float32"]["max_difference"] == 0

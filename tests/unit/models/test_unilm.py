"""UniLMv2 from files of the published names and shapes, whose content is generated; and their conversion."""

import json
import math
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import layer_norm, one_hot
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizer,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from tnr_dist.models import convert, unilm
from tnr_dist.models.convert import convert_plm
from tnr_dist.models.packed import Packed
from tnr_dist.models.plm import KINDS, load_plm, read_config, to_huggingface
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util.errors import InputError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "News", "news", "##s", "!"]
SMALL = {
    "vocab_size": len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 150,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "rel_pos_bins": 32,
    "max_rel_pos": 128,
}
BIN, CONFIG, VOCAB = (f"unilm2-base-uncased{end}" for end in (".bin", "-config.json", "-vocab.txt"))
TEXTS = ["News!", "a b NEWS zz", "", "newss [SEP] " + "c " * 50]


def shapes(values):
    """Key names and shapes of the published state dict, the head for masked words included."""
    d, inner, words = values["hidden_size"], values["intermediate_size"], values["vocab_size"]

    def dense(name, rows, columns):
        return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}

    def norm(name):
        return {f"{name}.weight": (d,), f"{name}.bias": (d,)}

    out = {
        "bert.embeddings.word_embeddings.weight": (words, d),
        "bert.embeddings.position_embeddings.weight": (values["max_position_embeddings"], d),
        "bert.embeddings.token_type_embeddings.weight": (values["type_vocab_size"], d),
        **norm("bert.embeddings.LayerNorm"),
    }
    for i in range(values["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}."
        out |= {
            f"{layer}attention.self.q_bias": (1, 1, d),
            f"{layer}attention.self.v_bias": (1, 1, d),
            f"{layer}attention.self.qkv_linear.weight": (3 * d, d),
            **dense(f"{layer}attention.output.dense", d, d),
            **norm(f"{layer}attention.output.LayerNorm"),
            **dense(f"{layer}intermediate.dense", inner, d),
            **dense(f"{layer}output.dense", d, inner),
            **norm(f"{layer}output.LayerNorm"),
        }
    out["bert.encoder.rel_pos_bias.weight"] = (values["num_attention_heads"], values["rel_pos_bins"])
    out["cls.predictions.bias"] = (words,)
    out |= dense("cls.predictions.transform.dense", d, d) | norm("cls.predictions.transform.LayerNorm")
    return out


def generate(values, std):
    torch.manual_seed(0)
    state = OrderedDict()
    for key, shape in shapes(values).items():
        offset = 1.0 if key.endswith("LayerNorm.weight") else 0.0
        state[key] = torch.empty(shape).normal_(offset, 1.0 if "rel_pos_bias" in key else std)
    return state


@pytest.fixture
def folder(tmp_path):
    """A folder of the published files."""
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save(generate(SMALL, 0.2), folder / BIN)
    (folder / CONFIG).write_text(json.dumps(SMALL))
    (folder / VOCAB).write_text("\n".join(WORDS) + "\n")
    return folder


def change(folder, edit, **options):
    state = torch.load(folder / BIN, weights_only=True)
    edit(state)
    torch.save(state, folder / BIN, **options)


def buckets(length):
    """T5's 32 buckets up to distance 128 by their first distances: key after the query = second half."""
    firsts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]
    distances = [[key - query for key in range(length)] for query in range(length)]
    number = {d: sum(first <= d for first in firsts) - 1 for d in range(length)}
    return torch.tensor([[number[abs(d)] + 16 * (d > 0) for d in row] for row in distances])


def reference(state, values, tokens):
    """UniLMv2 on one sequence, written out: softmax(q k^T / sqrt(head_dim) + b[bucket(key - query)]) v, post-LN."""
    d, heads = values["hidden_size"], values["num_attention_heads"]
    size = d // heads

    def get(name):
        return state[f"bert.{name}"]

    def norm(x, name):
        return layer_norm(x, (d,), get(f"{name}.LayerNorm.weight"), get(f"{name}.LayerNorm.bias"), 1e-12)

    def dense(x, name):
        return x @ get(f"{name}.weight").t() + get(f"{name}.bias")

    x = get("embeddings.word_embeddings.weight")[tokens]
    x = x + get("embeddings.position_embeddings.weight")[: len(tokens)]
    x = norm(x + get("embeddings.token_type_embeddings.weight")[0], "embeddings")
    bias = one_hot(buckets(len(tokens)), values["rel_pos_bins"]).float() @ get("encoder.rel_pos_bias.weight").t()
    for i in range(values["num_hidden_layers"]):
        layer = f"encoder.layer.{i}."
        qkv = x @ get(f"{layer}attention.self.qkv_linear.weight").t()
        q = qkv[:, :d] + get(f"{layer}attention.self.q_bias")[0]
        k = qkv[:, d : 2 * d]
        v = qkv[:, 2 * d :] + get(f"{layer}attention.self.v_bias")[0]
        attended = []
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].t() / math.sqrt(size) + bias[:, :, h]
            attended.append(torch.softmax(scores, -1) @ v[:, part])
        x = norm(x + dense(torch.cat(attended, 1), f"{layer}attention.output.dense"), f"{layer}attention.output")
        inner = dense(x, f"{layer}intermediate.dense")
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        x = norm(x + dense(inner, f"{layer}output.dense"), f"{layer}output")
    return x


def check_forward(encoder, state, values, lengths):
    tokens = torch.randint(values["vocab_size"], (sum(lengths),), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = encoder.eval()(Packed.pack(tokens, lengths)).split(lengths)
        for part, own in zip(tokens.split(lengths), ours, strict=True):
            torch.testing.assert_close(own, reference(state, values, part), atol=1e-5, rtol=1e-5)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


def test_forward_equals_the_published_computation(folder):
    encoder, _ = load_plm(str(folder))
    check_forward(encoder, torch.load(folder / BIN, weights_only=True), SMALL, [150, 7, 1, 30])


@pytest.mark.parametrize("kind", sorted(name for name, one in KINDS.items() if one.name == "UniLMv2"))
def test_its_type_may_have_any_of_the_published_names(folder, kind):
    (file,) = folder.glob("*config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": kind}))
    encoder, _ = load_plm(str(folder))
    check_forward(encoder, torch.load(folder / BIN, weights_only=True), SMALL, [9, 30])
    assert to_huggingface(encoder)[1]["model_type"] == KINDS[kind].exported_as


def test_the_head_of_masked_words_is_left_out_and_nothing_else(folder):
    encoder, files = load_plm(str(folder))
    numbers = sum(math.prod(shape) for key, shape in shapes(SMALL).items() if not key.startswith("cls."))
    # The keys' biases are zeros of our own; the softmax does not see them, but training must start from the published.
    assert sum(p.numel() for p in encoder.parameters()) == numbers + 2 * SMALL["hidden_size"]
    assert all(not layer.qkv.bias[24:48].any() and layer.qkv.bias.any() for layer in encoder.layers)
    assert files.paths["vocab.txt"].name == VOCAB and files.lowercase


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("zip_format", [True, False])
def test_conversion_reads_back_bit_equal(folder, tmp_path, zip_format, half):
    def to_half(state):
        for key in state if half else ():
            state[key] = state[key].half()

    change(folder, to_half, _use_new_zipfile_serialization=zip_format)
    out = tmp_path / "converted"
    assert convert_plm(str(folder), out)
    names = ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert sorted(path.name for path in out.iterdir()) == names
    encoder, files = load_plm(str(folder))
    again, copied = load_plm(str(out))
    assert again.config == encoder.config and same(again, encoder)
    assert files.hash() == copied.hash() and copied.lowercase
    ours, theirs = (load_tokenizer(x).encode_batch(TEXTS, 20) for x in (files, str(out)))
    assert all((a == b).all() for a, b in zip(ours, theirs, strict=True))
    assert ours[0][:4].tolist() == [2, WORDS.index("news"), WORDS.index("!"), 3]
    published = BertTokenizer.from_pretrained(out)(TEXTS, max_length=20, truncation=True)["input_ids"]
    assert [token for ids in published for token in ids] == ours[0].tolist()


def test_a_conversion_is_made_once_and_never_over_another(folder, tmp_path):
    out = tmp_path / "converted"
    out.mkdir()
    assert convert_plm(str(folder), out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert not convert_plm(str(folder), out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before

    def edit(state):
        state["bert.encoder.layer.1.output.dense.bias"][0] += 1e-3

    change(folder, edit)
    with pytest.raises(InputError, match="converted: exists and is not this conversion"):
        convert_plm(str(folder), out)
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    for name in ("file", "other"):
        with pytest.raises(InputError, match=f"{name}: exists and is not"):
            convert_plm(str(folder), tmp_path / name)
    with pytest.raises(InputError, match="the output is the source itself"):
        convert_plm(str(folder), folder)


def test_the_tokenizers_case_is_part_of_a_conversion(folder, tmp_path):
    convert_plm(str(folder), tmp_path / "converted")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    with pytest.raises(InputError, match="is not this conversion"):
        convert_plm(str(folder), tmp_path / "converted")


def test_an_interrupted_conversion_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        convert_plm(str(folder), tmp_path / "converted")
    assert list(tmp_path.iterdir()) == [folder]


def test_without_a_configuration_the_published_one_is_assumed(folder, monkeypatch):
    expected, _ = load_plm(str(folder))
    (folder / CONFIG).unlink()
    published = read_config(folder)
    assert (published.layers, published.hidden, published.heads, published.max_positions) == (12, 768, 12, 512)
    assert (published.relative_buckets, published.relative_max_distance, published.vocab_size) == (32, 128, 30522)
    with pytest.raises(InputError, match=rf"{VOCAB}: {len(WORDS)} lines, .* vocab_size = 30522"):
        load_plm(str(folder))
    monkeypatch.setattr(unilm, "BASE_UNCASED", SMALL)
    encoder, _ = load_plm(str(folder))
    assert encoder.config == expected.config and same(encoder, expected)
    (folder / BIN).rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no config.json; not a model folder"):
        load_plm(str(folder))


LAYER = "bert.encoder.layer.1.attention.self."
RELATIVE = "bert.encoder.rel_pos_bias.weight"
POSITIONS = "bert.embeddings.position_embeddings.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s: s.update({POSITIONS: torch.zeros(512, 23)}),
            r"position_embeddings.weight has shape \[512, 23\], expected \[150, 24\] \(max_position_embeddings, ",
        ),
        (
            lambda s: s.update({"bert.embeddings.word_embeddings.weight": torch.zeros(30522, 24)}),
            r"word_embeddings.weight has shape \[30522, 24\], expected \[35, 24\] \(vocab_size, hidden_size\)",
        ),
        (
            lambda s: s.update({RELATIVE: torch.zeros(3, 16)}),
            r"relative position bias of shape \[3, 16\], expected \[3, 32\] \(num_attention_heads, rel_pos_bins\)",
        ),
        (
            lambda s: s.update({RELATIVE: torch.zeros(4, 32)}),
            r"relative position bias of shape \[4, 32\], expected \[3, 32\]",
        ),
        (lambda s: s.pop(RELATIVE), r"key rel_pos_bias.weight is missing"),
        (
            lambda s: s.update({f"{LAYER}qkv_linear.weight": torch.zeros(48, 24)}),
            r"layer.1.attention.self.qkv_linear.weight has shape \[48, 24\], expected \[72, 24\]",
        ),
        (lambda s: s.pop(f"{LAYER}v_bias"), r"layer.1.attention.self.v_bias is missing, expected \[1, 1, 24\]"),
        (
            lambda s: s.update({f"{LAYER}q_bias": torch.zeros(1, 1, 23)}),
            r"layer.1.attention.self.q_bias has shape \[1, 1, 23\], expected \[1, 1, 24\]",
        ),
        (lambda s: s.pop("bert.encoder.layer.0.output.dense.bias"), "layer.0.output.dense.bias is missing"),
    ],
)
def test_other_tensors_are_named(folder, edit, message):
    change(folder, edit)
    with pytest.raises(InputError, match=message) as error:
        load_plm(str(folder))
    assert str(error.value).startswith(f"{folder / BIN}: ") and "\n" not in str(error.value)


def said(capsys):
    """The one line on stderr, without its time."""
    (line,) = capsys.readouterr().err.splitlines()
    return line.partition(" ")[2]


@pytest.mark.parametrize("rows", [40, 512])
def test_a_position_table_of_another_size_is_resized(folder, tmp_path, capsys, rows):
    """Cut or extended, as the public loaders do, with a warning; the rows that are there stay."""
    torch.manual_seed(2)
    table = torch.randn(rows, 24)
    change(folder, lambda state: state.update({POSITIONS: table}))
    encoder, _ = load_plm(str(folder))
    how = "extended by rows drawn at random" if rows < 150 else "cut"
    assert said(capsys) == f"{folder / BIN}: {rows} positions, max_position_embeddings is 150: {how}"
    ours = encoder.positions.weight.detach()
    kept = min(rows, 150)
    assert ours.shape == (150, 24) and torch.equal(ours[:kept], table[:kept])
    if rows < 150:
        assert ours[rows:].std() == pytest.approx(0.02, rel=0.1) and ours[rows:].mean().abs() < 0.002
    state = torch.load(folder / BIN, weights_only=True) | {POSITIONS: ours}
    check_forward(encoder, state, SMALL, [150, 7, 30])
    torch.manual_seed(5)  # what is drawn does not depend on it: another rank has the same
    assert same(load_plm(str(folder))[0], encoder)
    out = tmp_path / "converted"
    assert convert_plm(str(folder), out) and not convert_plm(str(folder), out)
    capsys.readouterr()
    assert same(load_plm(str(out))[0], encoder) and not capsys.readouterr().err


def test_tensors_without_a_place_are_left_out(folder, tmp_path, capsys):
    expected, _ = load_plm(str(folder))
    others = {"bert.encoder.layer.2.output.dense.bias": torch.zeros(24), "bert.embeddings.extra": torch.zeros(3)}
    change(folder, lambda state: state.update(others))
    capsys.readouterr()
    assert same(load_plm(str(folder))[0], expected)
    line = said(capsys)
    assert line == f"{folder / BIN}: left out: embeddings.extra (2 in all), for which 2 layers have no place"
    convert_plm(str(folder), tmp_path / "converted")
    assert "layer.2" not in str(load_file(tmp_path / "converted" / "model.safetensors").keys())


def test_of_other_models_neither_is_accepted(tmp_path):
    """There a wrong size means a file of another model: `transformers` refuses it too."""
    config = BertConfig(**{key: SMALL[key] for key in list(SMALL)[:6]})
    state = BertModel(config, add_pooling_layer=False).state_dict()
    config.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    name = POSITIONS.removeprefix("bert.")
    for changed, message in (
        ({name: torch.zeros(40, 24)}, r"position_embeddings.weight has shape \[40, 24\]"),
        ({"embeddings.extra": torch.zeros(3)}, "unexpected key embeddings.extra"),
    ):
        torch.save(state | changed, tmp_path / "pytorch_model.bin")
        with pytest.raises(InputError, match=message):
            load_plm(str(tmp_path))


def test_a_configuration_without_the_relative_bias(folder):
    values = {key: value for key, value in SMALL.items() if key not in ("rel_pos_bins", "max_rel_pos")}
    (folder / CONFIG).write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"{BIN}: has a relative position bias \[3, 32\], the configuration no rel"):
        load_plm(str(folder))


@pytest.mark.parametrize("lines", [len(WORDS) - 1, len(WORDS) + 1])
def test_the_vocabulary_has_a_line_for_each_word_vector(folder, lines):
    (folder / VOCAB).write_text("".join(f"{word}\n" for word in [*WORDS, "more"][:lines]))
    with pytest.raises(InputError, match=rf"{VOCAB}: {lines} lines, but the configuration says vocab_size = 35"):
        load_plm(str(folder))
    (folder / VOCAB).write_text("\n".join(WORDS))  # no newline at the end
    load_plm(str(folder))


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_pickle_is_refused_and_not_run(folder, tmp_path, capsys, legacy):
    change(folder, lambda state: state.update(evil=Evil()), _use_new_zipfile_serialization=not legacy)
    for action in (lambda: load_plm(str(folder)), lambda: convert_plm(str(folder), tmp_path / "converted")):
        with pytest.raises(InputError, match=f"{BIN}: refused: it holds pickled objects") as error:
            action()
        assert "\n" not in str(error.value)
    (folder / BIN).write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(InputError, match=f"{BIN}: "):
        load_plm(str(folder))
    assert "executed" not in capsys.readouterr().out and not (tmp_path / "converted").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cut_file_is_named(folder, legacy):
    change(folder, lambda state: None, _use_new_zipfile_serialization=not legacy)
    content = (folder / BIN).read_bytes()
    for size in [*range(0, 2000, 97), len(content) // 2, len(content) - 1]:
        (folder / BIN).write_bytes(content[:size])
        with pytest.raises(InputError, match=f"{BIN}: ") as error:
            load_plm(str(folder))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_other_pickled_models_are_converted_for_transformers(tmp_path, kind):
    sizes = {key: SMALL[key] for key in list(SMALL)[:6]}
    model, config = {
        "bert": (BertModel, BertConfig),
        "roberta": (RobertaModel, RobertaConfig),
        "mpnet": (MPNetModel, MPNetConfig),
    }[kind]
    torch.manual_seed(0)
    theirs = model(config(**sizes)).eval()
    source = tmp_path / "source"
    source.mkdir()
    torch.save({f"{kind}.{key}": value for key, value in theirs.state_dict().items()}, source / "pytorch_model.bin")
    theirs.config.save_pretrained(source)
    if kind == "roberta":
        (source / "vocab.json").write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5}))
        (source / "merges.txt").write_text("#version: 0.2\n")
    else:
        (source / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    out = tmp_path / "converted"
    assert convert_plm(str(source), out) and not convert_plm(str(source), out)
    assert same(load_plm(str(source))[0], load_plm(str(out))[0])
    tokens = torch.arange(4, 20)[None]
    with torch.no_grad():
        again = AutoModel.from_pretrained(out).eval()(tokens).last_hidden_state
        torch.testing.assert_close(again, theirs(tokens).last_hidden_state, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_full_size(tmp_path):
    values = unilm.BASE_UNCASED
    published = tmp_path / "published"
    published.mkdir()
    state = generate(values, 0.02)
    torch.save(state, published / BIN)
    words = [*WORDS, *(f"word{i}" for i in range(values["vocab_size"] - len(WORDS)))]
    (published / VOCAB).write_text("\n".join(words) + "\n")
    out = tmp_path / "converted"
    convert_plm(str(published), out)
    encoder, files = load_plm(str(out))
    assert load_file(out / "model.safetensors")["rel_pos_bias.weight"].shape == (12, 32)
    assert encoder.relative_bias.weight.shape == (32, 12) and encoder.positions.weight.shape == (512, 768)
    assert load_tokenizer(files).vocab_size == 30522
    check_forward(encoder, state, values, [512, 30, 9])

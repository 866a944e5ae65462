"""`vectors`: the vectors of all news of a prepared data set, for search engines and feature stores.

news.parquet           id, vector (fixed-size list of float32)
news_ids.npy, vectors.npy   the same for NumPy
index.faiss            exact inner-product index; row i is news i
user_encoder.safetensors    what makes user vectors of them
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tnr_dist.data.manifest import manifest_hash, open_table, read_manifest, read_news
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.evaluation.scoring import length_chunks
from tnr_dist.export.description import TABLES
from tnr_dist.export.huggingface import write_user_encoder
from tnr_dist.export.source import Source
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import Bar


def data_id(source: Source, data: Path) -> str:
    """Id of a prepared data set. Raises InputError when `data` is none, or was made with another tokenizer or shorter titles."""
    manifest = read_manifest(data)
    tokenizer = manifest["tokenizer"]
    if tokenizer["hash"] != source.tokenizer.hash:
        raise InputError(
            f"{data}: prepared with the tokenizer of {tokenizer['name']}, which is not that of "
            f"{source.config.plm.name}; give the data prepared for this model with --data"
        )
    kept = manifest["max_lengths"].get("title", 0)
    if kept < source.title_tokens:
        raise InputError(
            f"{data}: prepared with {kept} tokens a title, the model reads {source.title_tokens}; prepare it again with "
            f"--title-tokens {source.title_tokens}, and give it with --data"
        )
    return manifest_hash(data)


def write(source: Source, data: Path, folder: Path) -> None:
    """Write the vectors of all news of `data` into `folder`."""
    import faiss

    ids = read_news(data, ["id"])["id"].to_pylist()
    titles = open_table(data, "title").resident()
    if len(ids) != len(titles):
        raise InputError(f"{data}: {len(ids)} news, but {len(titles)} titles; prepare the data again")
    vectors = encode(source.model.news_encoder, titles, source.title_tokens)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(1))[0])
        raise InputError(
            f"{source.name}: the vector of news {ids[row]} is not finite; the model is damaged, train it again"
        )
    for name, values in zip(TABLES, (np.array(ids, dtype=np.str_), vectors), strict=True):
        np.save(folder / name, values, allow_pickle=False)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    pq.write_table(pa.table({"id": pa.array(ids, pa.string()), "vector": column}), folder / "news.parquet")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(folder / "index.faiss"))
    write_user_encoder(source, folder)


@torch.inference_mode()
def encode(encoder: NewsEncoder, titles: RaggedTable, max_length: int) -> np.ndarray:
    """Vectors [U, D] float32 of all rows of a token table, on the GPU where there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = encoder.to(device)
    out = np.empty((len(titles), encoder.dense.out_features), np.float32)
    with Bar("encode news", len(titles), "news") as bar:
        for rows in length_chunks(titles, max_length, device):
            batch = Packed.gather(titles.values, titles.offsets, rows, max_length).to(device)
            out[rows] = encoder(batch).float().cpu().numpy()
            bar.advance(len(rows))
    encoder.to("cpu")
    return out

"""A prepared data set, opened and compared with what a configuration wants of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tnr_dist.config.schema import (
    Config,
    DataConfig,
)
from tnr_dist.data.manifest import Manifest, manifest_hash, open_table, read_manifest
from tnr_dist.data.manifest import check_file as check_data_file
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.launch.warn import warn_once
from tnr_dist.models.digest import plm_digest
from tnr_dist.models.tokenizer import load_tokenizer
from tnr_dist.util.errors import InputError


@dataclass(frozen=True)
class DataSet:
    """A prepared data set."""

    folder: Path
    manifest: Manifest
    id: str

    @classmethod
    def open(cls, config: Config) -> DataSet:
        """Raises InputError when `data.dir` is no prepared data set, or its news or tokenizer are damaged.

        Token tables, indices and shards are checked where they are read.
        """
        folder = Path(config.data.dir)
        data = cls(folder, read_manifest(folder), manifest_hash(folder))
        files = data.manifest.get("files")
        if files is None:
            warn_once(folder, "prepared by an older version, which kept no digests: damage to it may go unseen")
        for name in files or ():
            if name == "news.parquet" or name.startswith("tokenizer/"):
                check_data_file(folder, name)
        return data

    def news_tokens(self, wanted: DataConfig) -> RaggedTable:
        """Token ids of what `wanted.news_inputs` names of every news, in memory; a click model reads these.

        Raises InputError when the data was prepared for other inputs or fewer tokens, or is damaged.
        """
        if wanted.news_inputs == ["title"]:
            table = open_table(self.folder, "title").resident()
            # Fewer may be read: a title is cut as the tokenizer cuts it.
            if wanted.title_tokens > (kept := self.manifest["max_lengths"].get("title", wanted.title_tokens)):
                raise InputError(
                    f"{self.folder}: prepared with {kept} tokens a title, but data.title_tokens={wanted.title_tokens}; set "
                    f"data.title_tokens={kept}, or prepare the data again into another folder"
                )
            return table
        made = self.manifest.get("news_inputs", {"title": self.manifest["max_lengths"]["title"]})
        lengths = {name: getattr(wanted, f"{name}_tokens") for name in wanted.news_inputs}
        if made != lengths:
            raise InputError(
                f"{self.folder}: prepared with the news inputs {_described(made)}, but data.news_inputs asks for "
                f"{_described(lengths)}; prepare the data again, into another folder"
            )
        return open_table(self.folder, "news").resident()

    def check_tokenizer(self, tokenizer_hash: str, plm: str) -> None:
        """The token ids must be those of the PLM that reads them."""
        if self.manifest["tokenizer"]["hash"] != tokenizer_hash:
            raise InputError(
                f"{self.folder}: prepared with the tokenizer of {self.manifest['tokenizer']['name']}, which is not that of "
                f"{plm}; prepare the data for this PLM"
            )

    def changed_plm(self, plm: str) -> str:
        """What is to be said when the PLM in the place of the one that the data was prepared with is another; '' if not.

        Whether a local folder was replaced or damaged cannot be known; runs of the two are told apart by it.
        """
        stated, name = self.manifest.get("plm_digest"), str(self.manifest["tokenizer"].get("name"))
        same_place = Path(name).expanduser().resolve() == Path(plm).expanduser().resolve()
        if not stated or not same_place or plm_digest(plm) == stated:
            return ""
        return f"not the PLM that {self.folder} was prepared with: its files have changed since, replaced or damaged"

    def check_tokenizer_name(self, plm: str) -> None:
        """`check_tokenizer` by the PLM's name."""
        self.check_tokenizer(load_tokenizer(plm).hash, plm)


def _described(inputs: dict[str, int]) -> str:
    return ", ".join(f"{name} ({length} tokens)" for name, length in inputs.items())

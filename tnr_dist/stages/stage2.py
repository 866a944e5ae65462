"""Second-stage distillation: the student learns from M finetuned teachers, through their cache (Fig. 2b)."""

from __future__ import annotations

from torch import Tensor, nn

from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.shards import read_index
from tnr_dist.data.teacher_cache import TeacherCache, TeacherTables
from tnr_dist.engines.base import Engine
from tnr_dist.kernels.dispatch import gather_cast, product_dtype
from tnr_dist.losses.common import Omega
from tnr_dist.losses.stage2 import Imitation, stage2_loss
from tnr_dist.models.projection import Projection
from tnr_dist.models.recommender import ModelSpec, Recommender
from tnr_dist.runs.folder import RunFolder
from tnr_dist.stages import cache, post_train, stage1
from tnr_dist.stages.parts.click_data import click_loader, fit_scale
from tnr_dist.stages.parts.click_task import ClickInputs, ClickTask, ClickTitles, Teachers
from tnr_dist.stages.parts.recipes import BATCH_SETTINGS, MODEL_SETTINGS, folder, recipe
from tnr_dist.stages.parts.start_models import continued_model, freeze, with_fresh_user_encoder
from tnr_dist.stages.stage import RowRun, Training
from tnr_dist.stages.stage1 import first_layers
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.util.progress import Bar


class Stage2Module(nn.Module):
    """L^(2) on a batch.

    The teachers' tables are non-persistent buffers: they follow the module to its device and are neither trained, saved,
    nor sent between ranks.

    Args:
        teacher_news: [news, M, D].
        tables: the teachers' user vectors and logits, of which batches then carry rows; None: batches carry the values.
    """

    teacher_news: Tensor
    teacher_users: Tensor | None
    teacher_logits: Tensor | None

    def __init__(
        self,
        student: Recommender,
        teacher_news: Tensor,
        settings: Stage2Config,
        dim: int,
        tables: TeacherTables | None = None,
    ) -> None:
        super().__init__()
        self.student, self.settings = student, settings
        teachers = teacher_news.shape[1]
        self.news_projection = self.user_projection = None
        if settings.use_embedding:
            init = settings.projection_init
            self.news_projection = Projection(teachers, dim, init)
            self.user_projection = (
                self.news_projection if settings.share_projection else Projection(teachers, dim, init)
            )
        weighted = settings.use_distill or settings.use_embedding
        self.omega = Omega(settings.omega, not (settings.learn_omega and weighted), settings.omega_form)
        self.register_buffer("teacher_news", teacher_news, persistent=False)
        self.register_buffer("teacher_users", tables.users if tables else None, persistent=False)
        self.register_buffer("teacher_logits", tables.logits if tables else None, persistent=False)

    def _values(self, teachers: Teachers) -> tuple[Tensor, Tensor]:
        """The teachers' user vectors [B, M, D] and logits [B, C, M] of a batch."""
        if self.teacher_users is None or self.teacher_logits is None:
            return teachers.users, teachers.logits
        return self.teacher_users[teachers.users], self.teacher_logits[teachers.logits]

    def forward(self, inputs: ClickInputs) -> dict[str, Tensor]:
        """This rank's share of the loss and its parts (`stage2_loss`), and what the teachers' weights do."""
        settings = self.settings
        assert inputs.teachers is not None
        news = inputs.encode(self.student.news_encoder)
        users, scores = inputs.users_and_scores(self.student, news)
        slots, slot_mask = inputs.slots()
        teacher_users, teacher_logits = self._values(inputs.teachers)
        omega = self.omega()
        imitated_news = imitated_users = None
        if self.news_projection is not None and self.user_projection is not None:
            to_news, to_users, table = self.news_projection, self.user_projection, self.teacher_news
            teacher_news = gather_cast(table, inputs.news, product_dtype(table, to_news.weight))
            imitated_news = Imitation(teacher_news, to_news.weight, to_news.bias, news)
            imitated_users = Imitation(teacher_users, to_users.weight, to_users.bias, users)
        loss = stage2_loss(
            teacher_logits=teacher_logits.transpose(1, 2),
            omega=omega,
            student_scores=scores,
            weights=inputs.weights,
            count=inputs.count,
            candidate_mask=inputs.candidate_mask,
            news=imitated_news,
            slots=slots,
            slot_mask=slot_mask,
            users=imitated_users,
            beta2=settings.beta2,
            temperature=settings.temperature,
            use_distill=settings.use_distill,
            use_target=settings.use_target,
        )
        return {
            "loss": loss.total,
            "loss_distill": loss.distill,
            "loss_emb_news": loss.emb_news,
            "loss_emb_user": loss.emb_user,
            "loss_target": loss.target,
            # Multiplied, so that summing over ranks gives omega itself.
            "omega": omega.detach() * (inputs.weights.sum() / inputs.count),
            "teacher_weight": loss.teacher_weights,
            "teacher_entropy": loss.teacher_entropy,
        }


def run_folder(config: Config, data: DataSet) -> RunFolder:
    """Where the distilled student of `student.layers` layers lies and what it depends on."""
    inputs: dict[str, str | RunFolder] = {"data": data.id}
    name, init = f"stage2-{config.student.layers}", Stage2Config.of(config).init
    if init == "stage1":
        inputs["stage1"] = stage1.run_folder(config, data)
    else:
        name = f"{init}-{name}"
    if init == "post-train":
        inputs["post-train"] = post_train.run_folder(config, data)
    inputs["cache"] = cache.run_folder(config, data)
    settings = (*MODEL_SETTINGS, *BATCH_SETTINGS, "student", *recipe("stage2", Stage2Config.of(config)))
    return RunFolder(name, "stage2", config, settings, inputs, {})


def start_of_student(config: Config, data: DataSet) -> tuple[Recommender, ModelSpec]:
    """What the student starts from: stage 1's, or (without stage 1, Fig. 4) the first layers of `stage2.init`."""
    init = Stage2Config.of(config).init
    if init == "stage1":
        return continued_model(config, stage1.run_folder(config, data).path, "stage1")
    return first_layers(config, data, init, "stage2")


def teacher_tables(config: Config, data: DataSet, stored: TeacherCache, engine: Engine) -> TeacherTables | None:
    """The train split's teacher columns in memory, when they are within `stage2.teacher_tables_gib`."""
    if stored.gib("train") > Stage2Config.of(config).teacher_tables_gib:
        return None
    index = read_index(data.folder, "train")
    with Bar("teacher tables", len(index.shards), "shards", enabled=engine.environment.rank == 0) as bar:
        return TeacherTables.read(stored, index, bar.advance)


def build(run: RunFolder, data: DataSet, engine: Engine) -> ClickTask:
    """The student of `student.layers` layers, on the teachers' cache."""
    config, settings = run.config, Stage2Config.of(run.config)
    stored = TeacherCache(cache.run_folder(config, data).path, cache.expected(config, data))
    student, spec = start_of_student(config, data)
    student = with_fresh_user_encoder(student, spec, config.seed, "stage2")
    freeze(student.news_encoder, settings, engine)
    news = stored.news_vectors().transpose(0, 1).contiguous()  # [news, M, D]: one gather serves all teachers
    titles = ClickTitles(
        data.news_tokens(config.data),
        config.data.news_tokens,
        student.news_encoder,
        settings,
        engine,
        folder(config, "frozen"),
    )
    tables = teacher_tables(config, data, stored, engine)
    module = Stage2Module(student, news, settings, config.model.news_dim, tables)
    loader, held_out = click_loader(
        config,
        data,
        settings,
        config.seed,
        engine,
        teachers=tables.rows.columns if tables else lambda info: stored.columns("train", info),
    )
    fit_scale(config, data, settings, student, loader, engine)
    title = f"stage2 ({config.student.layers} layers)"
    return ClickTask(student, module, titles, loader, settings, config.seed, title, held_out)


STAGES = (Training("stage2", build),)
ROWS: dict[str, RowRun] = {"tiny-newsrec": lambda config, data, layers: run_folder(config, data)}

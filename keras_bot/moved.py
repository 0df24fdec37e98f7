"""Modules of keras_bot 0.1.0 under their old names, with a DeprecationWarning; also for files that name them."""

import importlib
import importlib.abc
import importlib.machinery
import types
from collections.abc import Sequence

from keras_bot.deprecation import warn

MOVED = {  # old name -> new name, within keras_bot
    "data.arrays": "data.sources.arrays",
    "data.class_file": "data.sources.class_file",
    "data.color": "data.augment.color",
    "data.convert_plan": "data.convert.plan",
    "data.digits": "data.sources.digits",
    "data.evaluation": "data.pipeline",
    "data.folder": "data.sources.folder",
    "data.grid": "data.preview",
    "data.image": "data.augment.geometry",
    "data.in_python": "data.python_ops",
    "data.library": "data.pipeline",
    "data.listing": "data.sources.listing",
    "data.manifest": "data.sources.manifest",
    "data.record_files": "data.sources.record_files",
    "data.shard_writer": "data.convert.shard_writer",
    "data.source": "data.sources.base",
    "data.tfds_set": "data.sources.tfds",
    "data.tfrecord": "data.sources.tfrecord",
    "data.training": "data.pipeline",
    "data.worker_rows": "data.sharding",
    "durable": "atomic_files",
    "export.place": "export.path_checks",
    "export.predict": "export.prediction",
    "export.readback": "export.verification",
    "models.fold": "surgery",
    "report.ablation": "ablation.driver",
    "report.calibration": "report.reliability",
    "report.certainty": "report.sections.calibration",
    "report.checking": "ablation.validate",
    "report.intervals": "ablation.intervals",
    "report.ledger": "ablation.ledger",
    "report.mistakes": "report.sections.mistakes",
    "report.overview": "report.sections.overview",
    "report.plots": "ablation.plots",
    "report.processes": "subprocesses",
    "report.progress": "report.sections.progress",
    "report.results": "ablation.results",
    "report.rows": "ablation.rows",
    "report.tables": "ablation.tables",
    "report.task_files": "report.sections.task_files",
    "report.tricks_off": "bag",
    "report.wording": "report.formatting",
    "training.accumulate": "training.distributed.accumulate",
    "training.accumulate_jax": "training.distributed.accumulate_jax",
    "training.adamw": "training.optimizer",
    "training.backends": "training.distributed.selection",
    "training.checkpoint": "training.checkpoints.checkpoint",
    "training.classification": "tasks.classification",
    "training.cluster": "training.distributed.cluster",
    "training.meeting": "training.distributed.rendezvous",
    "training.network": "model_files",
    "training.on_jax": "training.distributed.on_jax",
    "training.on_tensorflow": "training.distributed.on_tensorflow",
    "training.plan": "plan",
    "training.records": "training.checkpoints.run_directory",
    "training.run_lock": "training.checkpoints.run_lock",
    "training.saver": "training.checkpoints.saver",
    "training.soft_targets": "training.distillation.soft_targets",
    "training.start": "training.finetune",
    "training.strategy": "training.distributed.strategy",
    "training.task": "tasks.base",
    "training.teacher": "training.distillation.teacher",
    "training.teacher_cache": "training.distillation.cache",
    "training.teacher_targets": "training.distillation.targets",
    "transfer": "tasks",
    "transfer.anchors": "tasks.detection.anchors",
    "transfer.annotation_checks": "tasks.detection.data.annotation_checks",
    "transfer.annotations": "tasks.detection.data.annotations",
    "transfer.backbone": "tasks.backbone",
    "transfer.box_coding": "tasks.detection.box_coding",
    "transfer.boxes": "tasks.detection.box_ops",
    "transfer.coco": "tasks.detection.data.coco",
    "transfer.deeplab": "tasks.segmentation.deeplab",
    "transfer.detection": "tasks.detection.task",
    "transfer.detection_losses": "tasks.detection.losses",
    "transfer.detection_metrics": "tasks.detection.metrics",
    "transfer.detection_pipeline": "tasks.detection.data.pipeline",
    "transfer.detection_sets": "tasks.detection.data.sets",
    "transfer.detection_source": "tasks.detection.data.factory",
    "transfer.detection_view": "tasks.detection.data.view",
    "transfer.detector": "tasks.detection.detector",
    "transfer.faster_rcnn": "tasks.detection.faster_rcnn",
    "transfer.fcn": "tasks.segmentation.fcn",
    "transfer.fpn": "tasks.detection.fpn",
    "transfer.masks": "tasks.segmentation.data.masks",
    "transfer.pictures": "tasks.drawing",
    "transfer.predict": "tasks.prediction",
    "transfer.retinanet": "tasks.detection.retinanet",
    "transfer.roi": "tasks.detection.roi",
    "transfer.segmentation": "tasks.segmentation.task",
    "transfer.segmentation_classes": "tasks.segmentation.data.classes",
    "transfer.segmentation_data": "tasks.segmentation.data.source",
    "transfer.segmentation_folder": "tasks.segmentation.data.folder",
    "transfer.segmentation_metrics": "tasks.segmentation.metrics",
    "transfer.segmentation_pipeline": "tasks.segmentation.data.pipeline",
    "transfer.segmentation_source": "tasks.segmentation.data.factory",
    "transfer.serve": "tasks.serving",
    "transfer.start": "tasks.backbone",
    "transfer.tasks": "tasks",
    "transfer.tfds_detection": "tasks.detection.data.tfds",
    "transfer.tfds_segmentation": "tasks.segmentation.data.tfds",
    "transfer.voc": "tasks.detection.data.voc",
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import hook: a module of `MOVED` is imported under its old name as a copy of the new module's namespace."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Returns the spec of an old name, None for any other."""
        if fullname.removeprefix("keras_bot.") not in MOVED or not fullname.startswith("keras_bot."):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=fullname == "keras_bot.transfer")

    def exec_module(self, module: types.ModuleType) -> None:
        """Fills the module with the names of the new one."""
        new = f"keras_bot.{MOVED[module.__name__.removeprefix('keras_bot.')]}"
        warn(f"{module.__name__} is now {new}")
        names = vars(importlib.import_module(new)).items()
        kept = {name: value for name, value in names if not name.startswith("__") or name == "__getattr__"}
        vars(module).update(kept)

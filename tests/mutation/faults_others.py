"""Faults in checkpoints, export, the other tasks, interop, ablation and the command line."""

from fault import Fault

CHECKPOINTS = [
    Fault(
        area="checkpoints",
        kind="off by one",
        file="training/checkpoints/saver.py",
        old="self._step = self._first_step + batch + 1",
        new="self._step = self._first_step + batch",
        harm="A resumed run repeats the batch of its last update.",
        seen=(
            "With 6 steps per epoch and checkpoints every 2, the steps saved are 0, 2, 4, 6, … and the first is "
            "before any."
        ),
    ),
    Fault(
        area="checkpoints",
        kind="dropped term",
        file="training/checkpoints/saver.py",
        old='            self._metric_state.write(self._resumed["metrics"])\n',
        new="",
        harm="After a resume within an epoch, its training loss and top-1 cover only the steps since then.",
        seen="After a resume in step 2 of 6, the training loss is 1.4537 instead of the whole run's 1.3757.",
    ),
    Fault(
        area="checkpoints",
        kind="wrong sign",
        file="training/checkpoints/checkpoint.py",
        old="for path in reversed(self.files()):",
        new="for path in self.files():",
        harm="A run resumes from the oldest checkpoint that is kept.",
        seen="read_newest returns the checkpoint of step 1 if there are those of steps 1 and 2.",
    ),
    Fault(
        area="checkpoints",
        kind="ignored flag",
        file="training/checkpoints/run_directory.py",
        old="for folder in (self.tensorboard, self.checkpoints):",
        new="for folder in (self.tensorboard,):",
        harm="--overwrite leaves the old checkpoints, and a later --resume continues the deleted run.",
        seen="After --overwrite with one epoch of 6 steps, step-00000012.npz and step-00000018.npz are still there.",
        tests=("training/checkpoints/test_checkpoint.py", "test_train.py"),
    ),
    Fault(
        area="checkpoints",
        kind="wrong sign",
        file="training/callbacks.py",
        old='max(row[f"val_{self._metrics[0]}"] for row in self.history)',
        new='min(row[f"val_{self._metrics[0]}"] for row in self.history)',
        harm="best.keras is the network after the worst epoch.",
        seen="The best of the epochs' 0.2, 0.5, 0.4 is 0.2 instead of 0.5.",
        tests=("test_train.py", "training/checkpoints/test_checkpoint.py"),
    ),
    Fault(
        area="checkpoints",
        kind="wrong default",
        file="recipe/__init__.py",
        old="keep_checkpoints: int = setting(2,",
        new="keep_checkpoints: int = setting(1,",
        harm="If the only checkpoint is damaged, there is no older one to resume from.",
        seen="Recipe().keep_checkpoints is 1 instead of 2.",
        tests=("test_recipe.py", "training/checkpoints/test_checkpoint.py"),
    ),
]

EXPORT = [
    Fault(
        area="export",
        kind="ignored flag",
        file="export/savedmodel.py",
        old="data.preprocess_eval(images, image_size, transform, eval_crop)",
        new="data.preprocess_eval(images, image_size, transform)",
        harm="A SavedModel of a network trained with another --eval_crop crops images differently than evaluation did.",
        seen=(
            "Probabilities of a network exported with eval_crop=0.5 are 0.394 … instead of 0.386 …; the export's own "
            "check compares with the same function."
        ),
    ),
    Fault(
        area="export",
        kind="wrong default",
        file="export/savedmodel.py",
        old="features(color.normalise(images), training=True)",
        new="features(color.normalise(images), training=False)",
        harm="Fine-tuning through `features_train` never updates the batch norm statistics.",
        seen="A call of features_train changes no variable of the loaded SavedModel.",
        tests=("export/test_savedmodel.py", "export/test_plain_finetuning.py"),
    ),
    Fault(
        area="export",
        kind="wrong sign",
        file="export/prediction.py",
        old="probabilities.argsort()[::-1][:top]",
        new="probabilities.argsort()[:top]",
        harm="`keras-bot predict` prints the least likely classes.",
        seen="The top two of the probabilities a 0.1, b 0.7, c 0.2 are a, c instead of b, c.",
        tests=("export/test_savedmodel.py", "cli/test_main.py"),
    ),
    Fault(
        area="export",
        kind="swapped arguments",
        file="export/savedmodel.py",
        old='"mean": color.MEAN, "std": color.STD',
        new='"mean": color.STD, "std": color.MEAN',
        harm="model.json exchanges mean and std, so that a SavedModel as --teacher normalises images wrongly.",
        seen="The mean in model.json is 58.393, 57.12, 57.375.",
        tests=("export/test_savedmodel.py", "training/distillation/test_teacher.py"),
    ),
]

OTHERS = [
    Fault(
        area="detection",
        kind="wrong axis",
        file="tasks/detection/box_coding.py",
        old="anchor_centre + deltas[..., :2] * anchor_size",
        new="anchor_centre + deltas[..., :2] * anchor_size[..., ::-1]",
        harm="Boxes from anchors that are not square are shifted by the wrong side's length.",
        seen="A delta of 1 in y from an anchor of 10x40 shifts the box by 4 instead of 1.",
    ),
    Fault(
        area="detection",
        kind="dropped term",
        file="tasks/detection/box_ops.py",
        old="area(one)[..., :, None] + area(other)[..., None, :] - shared",
        new="area(one)[..., :, None] + area(other)[..., None, :]",
        harm="The IoU of equal boxes is 1/2: hardly any anchor matches, and NMS keeps duplicates.",
        seen="The IoU of a box with itself is 0.5 instead of 1.",
    ),
    Fault(
        area="segmentation",
        kind="dropped term",
        file="tasks/segmentation/data/pipeline.py",
        old="(image[:, ::-1], mask[:, ::-1])",
        new="(image[:, ::-1], mask)",
        harm="Half of the training images are mirrored without their masks.",
        seen="A flipped 2x2 image 1 0 / 3 2 comes with the mask 0 1 / 2 3 instead of 1 0 / 3 2.",
        tests=("tasks/segmentation/data/test_segmentation_pipeline.py",),
    ),
    Fault(
        area="interop",
        kind="wrong axis",
        file="interop/names.py",
        old="_CONVOLUTION, _DENSE = (2, 3, 1, 0), (1, 0)",
        new="_CONVOLUTION, _DENSE = (3, 2, 1, 0), (1, 0)",
        harm="Square kernels imported from timm, torchvision, … are transposed without an error.",
        seen="A resnet18_b saved for timm and imported again gives logits that differ by 0.18 instead of 0.",
    ),
    Fault(
        area="ablation",
        kind="wrong default",
        file="ablation/intervals.py",
        old="CONFIDENCE = 0.95",
        new="CONFIDENCE = 0.9",
        harm="Tables call 90 % intervals 95 % intervals and find differences significant that aren't.",
        seen="The interval of 1, 2, 3 is 0.31 to 3.69 instead of -0.48 to 4.48.",
    ),
    Fault(
        area="cli",
        kind="ignored flag",
        file="cli/commands/finetune.py",
        old="with_source_settings(recipe, flags.explicit_fields())",
        new="with_source_settings(recipe, set())",
        harm="`keras-bot finetune --image_size=…` silently uses the image size of the source network.",
        seen="finetune --image_size=32 from a network trained with 48 trains with 48.",
        tests=("training/test_finetune.py", "cli/test_main.py"),
    ),
]

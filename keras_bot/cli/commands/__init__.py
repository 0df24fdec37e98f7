"""One module per command of `keras-bot`, and the one-line summaries for the help."""

COMMANDS = {
    "train": "train a model",
    "ablate": "run an ablation: several recipes over several seeds, with a results table",
    "finetune": "fine-tune a trained model on other data",
    "launch": "run a command in several worker processes on this machine",
    "evaluate": "evaluate a trained model",
    "report": "write an HTML page about one or several runs",
    "export": "export a trained model as a SavedModel, .keras, .onnx, .tflite or timm's .safetensors file",
    "import-weights": "convert weights from timm, torchvision, keras-hub, … to a .keras file",
    "inspect": "describe an exported model: signatures, classes, preprocessing",
    "predict": "run an exported model on image files: classes, boxes or masks",
    "models": "list the networks with parameters and FLOPs",
    "data": "describe a data set, draw augmented samples, or convert a folder to TFRecord shards",
    "bench": "benchmark training steps and input pipelines against other libraries",
}
SUBCOMMANDS = {
    "data convert": "convert an image folder to TFRecord shards",
    "bench model": "time the training steps of a network and of its counterparts in other libraries",
    "bench refinements": "time the training steps of a recipe with and without the bag of tricks",
    "bench data": "measure the throughput of the input pipelines and of tf.image, Keras and torchvision",
    "bench pipelines": "compare the accuracy of a recipe with the input pipeline and with tf.image",
}

"""Constructors of all networks: `ResNet50D(num_classes=10)` is `create_model("resnet50_d", num_classes=10)`.

All public names of this module are constructors: `keras_bot.models` exports them with `import *`.
"""

import inspect as _inspect
from collections.abc import Callable as _Callable

import keras as _keras

from keras_bot.models.networks import create_model as _create_model


def _constructor(public_name: str, name: str) -> _Callable[..., _keras.Model]:
    def constructor(**options):
        return _create_model(name, **options)

    signature = _inspect.signature(_create_model)
    options = [option for key, option in signature.parameters.items() if key != "name"]
    constructor.__name__ = constructor.__qualname__ = public_name
    constructor.__doc__ = f"Builds {name}. Same as `create_model({name!r}, …)`, with the same options."
    vars(constructor)["__signature__"] = signature.replace(parameters=options)
    return constructor


ResNet10A = _constructor("ResNet10A", "resnet10_a")
ResNet10B = _constructor("ResNet10B", "resnet10_b")
ResNet10C = _constructor("ResNet10C", "resnet10_c")
ResNet10D = _constructor("ResNet10D", "resnet10_d")
ResNet10VD = _constructor("ResNet10VD", "resnet10_vd")
ResNet14A = _constructor("ResNet14A", "resnet14_a")
ResNet14B = _constructor("ResNet14B", "resnet14_b")
ResNet14C = _constructor("ResNet14C", "resnet14_c")
ResNet14D = _constructor("ResNet14D", "resnet14_d")
ResNet18A = _constructor("ResNet18A", "resnet18_a")
ResNet18B = _constructor("ResNet18B", "resnet18_b")
ResNet18C = _constructor("ResNet18C", "resnet18_c")
ResNet18D = _constructor("ResNet18D", "resnet18_d")
ResNet18VD = _constructor("ResNet18VD", "resnet18_vd")
ResNet26A = _constructor("ResNet26A", "resnet26_a")
ResNet26B = _constructor("ResNet26B", "resnet26_b")
ResNet26C = _constructor("ResNet26C", "resnet26_c")
ResNet26D = _constructor("ResNet26D", "resnet26_d")
ResNet34A = _constructor("ResNet34A", "resnet34_a")
ResNet34B = _constructor("ResNet34B", "resnet34_b")
ResNet34C = _constructor("ResNet34C", "resnet34_c")
ResNet34D = _constructor("ResNet34D", "resnet34_d")
ResNet34VD = _constructor("ResNet34VD", "resnet34_vd")
ResNet50A = _constructor("ResNet50A", "resnet50_a")
ResNet50B = _constructor("ResNet50B", "resnet50_b")
ResNet50C = _constructor("ResNet50C", "resnet50_c")
ResNet50D = _constructor("ResNet50D", "resnet50_d")
ResNet101A = _constructor("ResNet101A", "resnet101_a")
ResNet101B = _constructor("ResNet101B", "resnet101_b")
ResNet101C = _constructor("ResNet101C", "resnet101_c")
ResNet101D = _constructor("ResNet101D", "resnet101_d")
ResNet152A = _constructor("ResNet152A", "resnet152_a")
ResNet152B = _constructor("ResNet152B", "resnet152_b")
ResNet152C = _constructor("ResNet152C", "resnet152_c")
ResNet152D = _constructor("ResNet152D", "resnet152_d")
CifarResNet8A = _constructor("CifarResNet8A", "cifar_resnet8_a")
CifarResNet8D = _constructor("CifarResNet8D", "cifar_resnet8_d")
CifarResNet20A = _constructor("CifarResNet20A", "cifar_resnet20_a")
CifarResNet20D = _constructor("CifarResNet20D", "cifar_resnet20_d")
CifarResNet32A = _constructor("CifarResNet32A", "cifar_resnet32_a")
CifarResNet32D = _constructor("CifarResNet32D", "cifar_resnet32_d")
CifarResNet56A = _constructor("CifarResNet56A", "cifar_resnet56_a")
CifarResNet56D = _constructor("CifarResNet56D", "cifar_resnet56_d")
InceptionV3 = _constructor("InceptionV3", "inception_v3")
InceptionV3TF = _constructor("InceptionV3TF", "inception_v3_tf")
MobileNetV1 = _constructor("MobileNetV1", "mobilenet_v1")
MobileNetV1ReLU6 = _constructor("MobileNetV1ReLU6", "mobilenet_v1_relu6")
MobileNetV1TF = _constructor("MobileNetV1TF", "mobilenet_v1_tf")

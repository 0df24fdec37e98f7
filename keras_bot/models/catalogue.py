"""Constructors of all networks: `ResNet50D(num_classes=10)` is `create("resnet50_d", num_classes=10)`."""

import inspect

from keras_bot.models.networks import create


def _constructor(name, public_name):
    def constructor(**options):
        return create(name, **options)

    signature = inspect.signature(create)
    options = [option for key, option in signature.parameters.items() if key != "name"]
    constructor.__name__ = constructor.__qualname__ = public_name
    constructor.__doc__ = f"`create({name!r}, …)`, with the same options."
    constructor.__signature__ = signature.replace(parameters=options)
    return constructor


ResNet10A = _constructor("resnet10_a", "ResNet10A")
ResNet10B = _constructor("resnet10_b", "ResNet10B")
ResNet10C = _constructor("resnet10_c", "ResNet10C")
ResNet10D = _constructor("resnet10_d", "ResNet10D")
ResNet10VD = _constructor("resnet10_vd", "ResNet10VD")
ResNet14A = _constructor("resnet14_a", "ResNet14A")
ResNet14B = _constructor("resnet14_b", "ResNet14B")
ResNet14C = _constructor("resnet14_c", "ResNet14C")
ResNet14D = _constructor("resnet14_d", "ResNet14D")
ResNet18A = _constructor("resnet18_a", "ResNet18A")
ResNet18B = _constructor("resnet18_b", "ResNet18B")
ResNet18C = _constructor("resnet18_c", "ResNet18C")
ResNet18D = _constructor("resnet18_d", "ResNet18D")
ResNet18VD = _constructor("resnet18_vd", "ResNet18VD")
ResNet26A = _constructor("resnet26_a", "ResNet26A")
ResNet26B = _constructor("resnet26_b", "ResNet26B")
ResNet26C = _constructor("resnet26_c", "ResNet26C")
ResNet26D = _constructor("resnet26_d", "ResNet26D")
ResNet34A = _constructor("resnet34_a", "ResNet34A")
ResNet34B = _constructor("resnet34_b", "ResNet34B")
ResNet34C = _constructor("resnet34_c", "ResNet34C")
ResNet34D = _constructor("resnet34_d", "ResNet34D")
ResNet34VD = _constructor("resnet34_vd", "ResNet34VD")
ResNet50A = _constructor("resnet50_a", "ResNet50A")
ResNet50B = _constructor("resnet50_b", "ResNet50B")
ResNet50C = _constructor("resnet50_c", "ResNet50C")
ResNet50D = _constructor("resnet50_d", "ResNet50D")
ResNet101A = _constructor("resnet101_a", "ResNet101A")
ResNet101B = _constructor("resnet101_b", "ResNet101B")
ResNet101C = _constructor("resnet101_c", "ResNet101C")
ResNet101D = _constructor("resnet101_d", "ResNet101D")
ResNet152A = _constructor("resnet152_a", "ResNet152A")
ResNet152B = _constructor("resnet152_b", "ResNet152B")
ResNet152C = _constructor("resnet152_c", "ResNet152C")
ResNet152D = _constructor("resnet152_d", "ResNet152D")
CifarResNet8A = _constructor("cifar_resnet8_a", "CifarResNet8A")
CifarResNet8D = _constructor("cifar_resnet8_d", "CifarResNet8D")
CifarResNet20A = _constructor("cifar_resnet20_a", "CifarResNet20A")
CifarResNet20D = _constructor("cifar_resnet20_d", "CifarResNet20D")
CifarResNet32A = _constructor("cifar_resnet32_a", "CifarResNet32A")
CifarResNet32D = _constructor("cifar_resnet32_d", "CifarResNet32D")
CifarResNet56A = _constructor("cifar_resnet56_a", "CifarResNet56A")
CifarResNet56D = _constructor("cifar_resnet56_d", "CifarResNet56D")
InceptionV3 = _constructor("inception_v3", "InceptionV3")
InceptionV3TF = _constructor("inception_v3_tf", "InceptionV3TF")
MobileNetV1 = _constructor("mobilenet_v1", "MobileNetV1")
MobileNetV1ReLU6 = _constructor("mobilenet_v1_relu6", "MobileNetV1ReLU6")
MobileNetV1TF = _constructor("mobilenet_v1_tf", "MobileNetV1TF")
